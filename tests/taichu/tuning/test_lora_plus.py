"""LoRA+: one part learns at a multiple of the other's rate."""

import mindspore as ms
import numpy as np
import pytest

from ascend.operators import AdamW
from taichu.tuning.lora import Lora


def moved(make, rate, form) -> list[np.ndarray]:
    """How far two parameters go in three updates by the same gradients."""
    random = np.random.default_rng(0)
    drawn = [random.standard_normal((3, 4)).astype(np.float32) for _ in range(2)]
    named = zip(("m.lora_A", "m.lora_B"), drawn)
    parameters = [ms.Parameter(value, name) for name, value in named]
    optimizer = make(parameters, rate, weight_decay=0.1, form=form)
    for _ in range(3):
        optimizer(tuple(ms.Tensor(random.standard_normal((3, 4)), ms.float32) for _ in "ab"))
    return [p.asnumpy() - value for p, value in zip(parameters, drawn)]


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_b_learns_at_a_multiple_of_a_s_rate(cpu, form):
    slow, fast = moved(AdamW, 0.01, form), moved(AdamW, 0.16, form)
    found = moved(Lora(rate_ratio=16.0).optimizer, 0.01, form)
    np.testing.assert_allclose(found[0], slow[0], atol=1e-6)
    np.testing.assert_allclose(found[1], fast[1], atol=1e-6)
    assert np.abs(fast[1]).min() > 5 * np.abs(slow[1]).max()
    one = moved(Lora().optimizer, 0.01, form)
    np.testing.assert_allclose(one[1], slow[1], atol=1e-6)
