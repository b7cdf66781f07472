"""Codecs: the quantizer against NumPy, codes there and back, and training on real digits."""

import mindspore as ms
import numpy as np
import pytest

from ascend.operators import AdamW
from modality_adapters import GridGeometry, create_adapter
from taichu.config import CodecConfig
from taichu.model.codec import Codec, CodecObjective, FiniteScalarQuantizer, run_in_batches
from taichu.training.step import TrainingStep

LEVELS = [(5, 3), (8, 6), (6, 6, 6), (2, 7, 4, 5)]
GEOMETRY = GridGeometry((2, 4, 4, 3), (1, 2, 4))


def bound(x, levels):
    """FSQ's bound of each digit before rounding, and its derivative, in float64."""
    levels = np.array(levels, np.float64)
    half = (levels - 1) * 1.001 / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    y = np.tanh(x + np.arctanh(offset / half))
    return y * half - offset, (1 - y * y) * half


@pytest.mark.parametrize("levels", LEVELS)
def test_digits_are_the_rounded_bound(seeded, levels):
    x = seeded.standard_normal((400, len(levels))) * 2
    bounded, _ = bound(x, levels)
    clear = np.abs(bounded % 1 - 0.5) > 1e-4  # not where float32 may round the other way
    digits = FiniteScalarQuantizer(levels)(ms.Tensor(x, ms.float32)).asnumpy()
    expected = np.round(bounded) / (np.array(levels) // 2)
    assert clear.mean() > 0.99
    np.testing.assert_allclose(digits[clear], expected[clear], atol=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_is_reached_and_none_beyond(cpu, levels):
    x = np.linspace(-9, 9, 2001)[:, None].repeat(len(levels), 1)
    digits = FiniteScalarQuantizer(levels)(ms.Tensor(x, ms.float32)).asnumpy()
    for column, count in zip(digits.T, levels):
        expected = (np.arange(count) - count // 2) / (count // 2)
        np.testing.assert_allclose(np.unique(column.round(4)), expected, atol=1e-4)


@pytest.mark.parametrize("levels", [*LEVELS, (7, 5, 5, 5, 5)])
def test_every_code_comes_back(cpu, levels):
    quantizer = FiniteScalarQuantizer(levels)
    codes = np.arange(np.prod(levels), dtype=np.int32)
    assert quantizer.count == len(codes)
    digits = quantizer.digits(ms.Tensor(codes))
    expected, rest = [], codes
    for count in levels:
        expected.append((rest % count - count // 2) / (count // 2))
        rest = rest // count
    np.testing.assert_allclose(digits.asnumpy(), np.stack(expected, 1), atol=1e-6)
    np.testing.assert_array_equal(quantizer.codes(digits).asnumpy(), codes)


@pytest.mark.parametrize("levels", LEVELS)
def test_the_gradient_is_that_of_the_bound(seeded, levels):
    x = seeded.standard_normal((50, len(levels)))
    weight = seeded.standard_normal(x.shape)
    quantizer, weight_32 = FiniteScalarQuantizer(levels), ms.Tensor(weight, ms.float32)
    gradient = ms.grad(lambda x: (quantizer(x) * weight_32).sum())(ms.Tensor(x, ms.float32))
    expected = weight * bound(x, levels)[1] / (np.array(levels) // 2)
    np.testing.assert_allclose(gradient.asnumpy(), expected, atol=1e-5)


def test_decoded_codes_are_what_construct_gives(seeded):
    ms.set_seed(7)
    codec = Codec(CodecConfig(levels=(5, 4), width=32, depth=1), GEOMETRY, samples=3)
    patches = seeded.uniform(-1, 1, (3, GEOMETRY.tokens, GEOMETRY.patch_size)).astype(np.float32)
    codes = codec.encode(ms.Tensor(patches))
    assert codes.shape == (3, GEOMETRY.tokens) and codes.dtype == ms.int32
    assert codes.asnumpy().min() >= 0 and codes.asnumpy().max() < 20
    assert len(np.unique(codes.asnumpy())) > 3
    rebuilt = codec(ms.Tensor(patches))
    assert rebuilt.shape == patches.shape
    np.testing.assert_allclose(codec.decode(codes).asnumpy(), rebuilt.asnumpy(), atol=1e-5)
    for i in range(3):  # each grid by itself, wherever it stands
        turned = ms.Tensor(np.roll(patches, i, 0))
        np.testing.assert_array_equal(
            np.roll(codec.encode(turned).asnumpy(), -i, 0), codes.asnumpy()
        )


def test_training_rebuilds_real_digits(seeded, digits):
    ms.set_seed(7)
    adapter = create_adapter("image", {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]})
    files = sorted((digits.parent / "train" / "image").iterdir())[:48]
    patches = adapter.geometry.patchify(np.stack([adapter.read(file) for file in files]))
    codec = Codec(CodecConfig((6, 6, 6), width=32, depth=1), adapter.geometry, samples=16)
    objective = CodecObjective(codec)
    optimizer = AdamW(objective.trainable_params(), 3e-3, weight_decay=0.0)
    step = TrainingStep(objective, optimizer)
    losses = []
    for k in range(150):
        part = patches[k % 3 * 16 : k % 3 * 16 + 16]
        loss, logged, _ = step(ms.Tensor(part))
        losses.append(float(loss))
        if k == 0:  # the loss is the mean over all values
            np.testing.assert_allclose(float(logged[0]), float(loss))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.7 * patches.var()


def test_any_number_of_rows_runs_in_batches():
    sizes = []

    def function(rows):
        sizes.append(rows.shape[0])
        return rows * 2

    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    for count in (10, 8, 3, 1):
        sizes.clear()
        np.testing.assert_array_equal(run_in_batches(function, rows[:count], 4), 2 * rows[:count])
        assert sizes == [4] * -(-count // 4)
