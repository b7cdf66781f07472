"""Numbers of other kinds than float32 come back as they were, or are rounded as PyTorch rounds."""

import numpy as np
import pytest
import torch

from taichu.storage.float_kinds import RAW, narrow, widen

KINDS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_every_number_comes_back(kind):
    """All there are: negative zero, subnormal numbers and infinity among them."""
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    wide = widen(bits.view(RAW[kind]), kind)
    expected = torch.tensor(bits.view(np.int16)).view(KINDS[kind]).float().numpy()
    np.testing.assert_array_equal(wide, expected)
    number = ~np.isnan(wide)
    assert number.sum() > 60000
    np.testing.assert_array_equal(narrow(wide[number], kind).view(np.uint16), bits[number])
    assert np.isnan(widen(narrow(wide[~number], kind), kind)).all()


@pytest.mark.parametrize("kind", ["BF16", "F16", "F32"])
def test_others_are_rounded(kind):
    random = np.random.default_rng(0)
    values = (random.standard_normal(100_000) * 10.0 ** random.uniform(-9, 3, 100_000)).astype("f4")
    # half way between two numbers of bfloat16, and of float16
    half = (np.arange(0x3C00, 0x4400, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    values = np.concatenate([values, half, 1 + np.arange(1, 99, 2, dtype="f4") / 2048, [np.nan]])
    values = values.astype(np.float32)
    expected = torch.tensor(values).to(KINDS[kind]).float().numpy()
    np.testing.assert_array_equal(widen(narrow(values, kind), kind), expected)


@pytest.mark.parametrize("kind, least", [("BF16", 3.3961776e38), ("F16", 65520.0)])
def test_what_is_too_large(kind, least):
    last = np.nextafter(np.float32(least), np.float32(0))
    assert np.isfinite(widen(narrow(np.array([last, -last]), kind), kind)).all()
    with pytest.raises(OverflowError, match=f"a number is too large for {kind}"):
        narrow(np.array([0, -least], np.float32), kind)
    assert np.isinf(widen(narrow(np.array([np.inf], np.float32), kind), kind)).all()
