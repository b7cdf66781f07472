"""The peak of recomputed blocks, and of float32, against MindSpore's account of nano's step."""

import pytest

from ascend.device_matrix import ParallelConfig
from taichu.plan.memory import memory


# recomputed blocks hold a copy of what comes back from behind them, which is not counted
@pytest.mark.parametrize(
    "change, near", [("train.recompute=true", 0.05), ("precision=float32", 0.02)]
)
def test_peak(compile_step, change, near):
    work, compiled = compile_step(change)
    counted = memory(work, ParallelConfig(), 1)
    peak = counted.peak - counted.workspace - counted.communication
    assert peak == pytest.approx(compiled.peak_bytes, rel=near)
