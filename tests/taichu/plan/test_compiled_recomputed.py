"""The peak of recomputed blocks, and of float32, against MindSpore's account of nano's step."""

import pytest

from ascend.layout import Layout
from taichu.plan.memory import memory


@pytest.mark.parametrize("change", ["train.recompute=true", "precision=float32"])
def test_peak(compile_step, change):
    work, compiled = compile_step(change)
    counted = memory(work, Layout(), 1)
    peak = counted.peak - counted.workspace - counted.communication
    assert peak == pytest.approx(compiled.peak_bytes, rel=0.02)
