"""Formulas against nano's training step as MindSpore compiles it for an Ascend."""

import pytest

from ascend.device_matrix import ParallelConfig
from taichu.plan.memory import activations, casts, memory
from taichu.plan.operations import products
from taichu.plan.parameters import Held
from taichu.plan.workload import stages


@pytest.fixture(scope="module")
def step(compile_step):
    return compile_step()


def test_activations(step):
    work, compiled = step
    (stage,) = stages(work.size, ParallelConfig())
    held = Held(work, ParallelConfig(), stage, 1)
    counted = activations(work, ParallelConfig(), stage) + casts(work, held)
    assert counted == pytest.approx(compiled.kept_bytes, rel=0.02)


def test_peak(step):
    work, compiled = step
    counted = memory(work, ParallelConfig(), 1)
    # the stand-ins of CANN hold nothing, and run no kernel
    peak = counted.peak - counted.workspace - counted.communication
    assert peak == pytest.approx(compiled.peak_bytes, rel=0.02)


def test_operations(step):
    work, compiled = step
    (stage,) = stages(work.size, ParallelConfig())
    made = products(work, ParallelConfig(), stage)
    assert sum(p.forward for p in made) == pytest.approx(compiled.product_operations(False))
    assert sum(p.backward for p in made) == pytest.approx(compiled.product_operations(True))
    kernels = [node.op_type for node in compiled.graph.node]
    for kind in ("FlashAttentionScore", "FlashAttentionScoreGrad"):
        assert kernels.count(kind) == work.size.depth
