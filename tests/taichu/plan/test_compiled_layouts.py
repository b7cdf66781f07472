"""Formulas against nano's step as one of eight Ascends compiles it: what is sent, what is held.

The head is tied here: of an untied one, the Ascend form's gradient is not sent as it should be.
"""

from collections import Counter

import pytest

from ascend.device_matrix import ParallelConfig
from taichu.config import SIZES
from taichu.plan.communication import communication, group_size
from taichu.plan.memory import memory
from taichu.plan.workload import stages


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    path = tmp_path_factory.mktemp("size") / "tied.yaml"
    text = (SIZES / "nano.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("tied: false", "tied: true"), encoding="utf-8")
    return f"model={path}"


@pytest.mark.parametrize(
    "layout, changes",
    [
        (ParallelConfig(tensor=2, sequence=2, shard="parameters"), []),
        (ParallelConfig(tensor=2, shard="optimizer"), ["train.recompute=true"]),
    ],
)
def test_layout(compile_step, tied, layout, changes):
    keys = [f"parallel.{key}={getattr(layout, key)}" for key in ("tensor", "sequence", "shard")]
    work, compiled = compile_step(tied, *changes, *keys, ranks=8)
    (stage,) = stages(work.size, layout)

    counted: Counter = Counter()
    names = {4: "replica"} if layout.sequence == 1 else {}
    for c in communication(work, layout, 8, stage):
        # MindSpore's name of a group is that of the first axis that has the same ranks
        same = names.get(group_size(c.group, layout, 8), c.group)
        counted[c.kind, same, c.size] += c.calls
    found: Counter = Counter()
    for (kind, axis, size), calls in compiled.collectives().items():
        if names:
            axis = {"data": "replica"}.get(axis, axis)
        found[kind, axis, size] += calls
    assert counted == found

    held = memory(work, layout, 8)
    peak = held.peak - held.workspace - held.communication
    # of recomputed blocks so little is held at nano that a few single tensors are several percent
    assert peak == pytest.approx(compiled.peak_bytes, rel=0.05 if work.recompute else 0.02)
