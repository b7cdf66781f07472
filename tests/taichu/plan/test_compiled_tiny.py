"""Formulas against tiny's training step as MindSpore compiles it for an Ascend."""

import pytest

from ascend.device_matrix import ParallelConfig
from taichu.plan.memory import activations, casts, memory
from taichu.plan.parameters import Held
from taichu.plan.workload import stages


@pytest.fixture(scope="module")
def step(compile_step):
    return compile_step("model=tiny")


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
