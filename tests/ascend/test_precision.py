"""Compute types: which is chosen, half floats against float64, and training in float16."""

import mindspore as ms
import numpy as np
import pytest

from ascend import operators, precision
from ascend.loss_scale import LossScale
from ascend.operators import AdamW
from ascend.precision import PrecisionError, choose_precision, compute_type
from taichu.training.step import TrainingStep

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture
def half():
    """What is built is in float16, until the test ends."""
    choose_precision("float16")
    yield
    choose_precision("auto")


def test_a_cpu_computes_in_float32():
    assert choose_precision() == "precision: float32 (the best of CPU)"
    assert compute_type() == ms.float32


@pytest.mark.parametrize(
    "chip, best",
    [("Ascend910B2", "bfloat16"), ("Ascend910_9391", "bfloat16"), ("Ascend910A", "float16")]
    + [("Ascend310P3", "float16"), ("Ascend910ProB", "float16")],
)
def test_the_best_type_of_a_chip(monkeypatch, chip, best):
    monkeypatch.setattr(precision, "chip", lambda: chip)
    monkeypatch.setattr(precision.ms, "get_context", lambda name: "Ascend")
    monkeypatch.setattr(precision, "_chosen", {})
    assert choose_precision() == f"precision: {best} (the best of {chip})"
    if best == "float16":
        with pytest.raises(PrecisionError, match=f"bfloat16 is not there on {chip}; take float16"):
            choose_precision("bfloat16")


def test_wrong_types_are_refused():
    with pytest.raises(PrecisionError, match="'fp16' is unknown; there are auto, float32"):
        choose_precision("fp16")
    with pytest.raises(PrecisionError, match="bfloat16 is not there on CPU; take float32"):
        choose_precision("bfloat16")


def near(actual, expected, tolerance=2e-3):
    """Half floats have 11 bits: an error of 5e-4 of the largest number is one rounding."""
    assert actual.dtype == ms.float16
    scale = np.abs(expected).max()
    assert np.abs(actual.asnumpy().astype(np.float64) - expected).max() < tolerance * scale


def test_operators_in_half_floats(half):
    """Inputs are half floats; what lies between is wider, so errors are those of few roundings."""
    random = np.random.default_rng(3)
    x = random.standard_normal((64, 4, 16)).astype(np.float16)
    wide, tensor = x.astype(np.float64), ms.Tensor(x)
    gain = np.ones(16, np.float32) * 2

    angle = random.uniform(-9, 9, (64, 8))
    cos, sin = (ms.Tensor(f(angle), ms.float32) for f in (np.cos, np.sin))
    z = (wide[..., :8] + 1j * wide[..., 8:]) * np.exp(1j * angle)[:, None]
    near(operators.rotary()(tensor, cos, sin), np.concatenate((z.real, z.imag), -1))

    rows, twice = x.reshape(-1, 16), wide.reshape(-1, 16) * 2
    _, out = operators.add_rms_norm(1e-6)(ms.Tensor(rows), ms.Tensor(rows), ms.Tensor(gain))
    near(out, twice / np.sqrt((twice**2).mean(-1, keepdims=True)) * 2)
    gate, up = ms.Tensor(rows), ms.Tensor(rows[::-1].copy())
    flat = wide.reshape(-1, 16)
    near(operators.swiglu()(gate, up), flat / (1 + np.exp(-flat)) * flat[::-1])

    segment = ms.Tensor(np.ones((2, 32)), ms.int32)
    out = operators.attention()(tensor, tensor, tensor, segment, segment)
    heads = wide.reshape(2, 32, 4, 16)
    scores = np.einsum("blhk,bmhk->bhlm", heads, heads) / 4
    p = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhlm,bmhk->blhk", p / p.sum(-1, keepdims=True), heads)
    near(out, expected.reshape(64, 4, 16))


def test_the_loss_of_half_logits_is_in_float32(half):
    logits = np.random.default_rng(4).standard_normal((6, 9)).astype(np.float16) * 4
    targets, ranges = np.arange(6), np.tile([0, 9], (6, 1))
    loss = operators.cross_entropy()(
        ms.Tensor(logits), ms.Tensor(targets, ms.int32), ms.Tensor(ranges, ms.int32)
    )
    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide).sum(1)) - wide[np.arange(6), targets]
    assert loss.dtype == ms.float32
    np.testing.assert_allclose(loss.asnumpy(), expected, atol=1e-5)


def test_the_scale_falls_at_once_and_grows_slowly():
    scale = LossScale(start=8.0, window=3)
    step = ms.jit(scale.construct)
    norms = [np.inf, 1.0, 1.0, 1.0, 1.0, np.nan, 1.0]
    seen = []
    for norm in norms:
        finite = step(ms.Tensor([norm], ms.float32))
        assert bool(finite.asnumpy()[0]) == np.isfinite(norm)
        seen.append(float(scale.scale.asnumpy()[0]))
    assert seen == [4, 4, 4, 8, 8, 4, 4]


class Line(ms.nn.Cell):
    """Squared error of y = x W^T, so small that its gradients vanish in float16."""

    def __init__(self, size):
        super().__init__()
        self.weight = ms.Parameter(np.zeros((2, 3), np.float32))
        self.matmul, self.size = operators.Matmul(), size

    def construct(self, x, y):
        error = self.matmul(x, self.weight).astype(ms.float32) - y
        loss = (error * error).sum() * self.size
        return loss, loss.reshape((1,))


def test_training_in_float16(half):
    """Gradients of 1e-9 are lost in float16, but not behind a scale; one too large is left."""
    x = np.random.default_rng(5).standard_normal((8, 3)).astype(np.float32)
    y = x @ np.array([[1, 2, 3], [-1, 0, 1]], np.float32).T
    objective = Line(1e-9)
    optimizer = AdamW(objective.trainable_params(), 0.1, weight_decay=0.0, epsilon=1e-30)
    step = TrainingStep(objective, optimizer)
    step.loss_scale.scale.set_data(ms.Tensor([2.0**24], ms.float32))
    losses = [float(step(ms.Tensor(x), ms.Tensor(y))[0]) for _ in range(60)]
    assert losses[-1] < 0.02 * losses[0]
    assert int(optimizer.global_step.asnumpy()[0]) == 60

    objective = Line(100.0)  # 2^16 times this is beyond float16: first steps are left out
    optimizer = AdamW(objective.trainable_params(), 0.1, weight_decay=0.0)
    step = TrainingStep(objective, optimizer)
    norms = [float(step(ms.Tensor(x), ms.Tensor(y))[2][0]) for _ in range(40)]
    left_out = int(np.sum(~np.isfinite(norms)))
    assert 3 < left_out < 20 and np.isfinite(norms[left_out:]).all()
    assert int(optimizer.global_step.asnumpy()[0]) == 40 - left_out
    assert float(step.loss_scale.scale.asnumpy()[0]) == 2.0 ** (16 - left_out)
