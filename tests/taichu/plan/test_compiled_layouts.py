"""Formulas against nano's step as one of eight Ascends compiles it: what is sent, what is held.

The head is tied, so that both ends of a pipeline hold the id table.
"""

from collections import Counter
from dataclasses import asdict

import pytest

from ascend.device_matrix import ParallelConfig, lay_out_ranks
from ascend.ranks import Ranks
from taichu.config import SIZES
from taichu.plan.communication import communication
from taichu.plan.memory import of_stage
from taichu.plan.workload import stages


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    path = tmp_path_factory.mktemp("size") / "tied.yaml"
    text = (SIZES / "nano.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("tied: false", "tied: true"), encoding="utf-8")
    return f"model={path}"


@pytest.mark.parametrize(
    "layout, changes, rank",
    [
        (ParallelConfig(tensor=2, sequence=2, shard="parameters"), [], 0),
        (ParallelConfig(tensor=2, shard="optimizer"), ["train.recompute=true"], 0),
        (ParallelConfig(tensor=2, pipeline=2), [], 0),
        (ParallelConfig(sequence=2, pipeline=2, shard="parameters"), [], 7),
    ],
)
def test_layout(compile_step, tied, layout, changes, rank):
    keys = [f"parallel.{key}={value}" for key, value in asdict(layout).items()]
    work, compiled = compile_step(tied, *changes, *keys, rank=rank, ranks=8)
    matrix = lay_out_ranks(layout, Ranks(rank, 8))
    stage = stages(work.size, layout)[matrix.pipeline.index]

    counted: Counter = Counter()
    for c in communication(work, layout, 8, stage):
        counted[c.kind, getattr(matrix, c.group).group, c.size] += c.calls
    assert counted == compiled.collectives()

    held = of_stage(work, layout, layout.data(8), stage)
    peak = held.peak - held.workspace - held.communication
    # of recomputed blocks so little is held at nano that a few single tensors are several percent
    assert peak == pytest.approx(compiled.peak_bytes, rel=0.05 if work.recompute else 0.02)
