"""Each operator in both forms against NumPy in float64, its gradient against finite differences."""

import mindspore as ms
import numpy as np
import pytest

from ascend import operators
from ascend.operators.adamw import marked_unscaled
from ascend.operators.form import LIBRARY

needs_library = pytest.mark.skipif(LIBRARY is None, reason="no C++ compiler at installation")
both_forms = pytest.mark.parametrize(
    "form", ["plain", pytest.param("compiled", marks=needs_library)]
)
pytestmark = pytest.mark.usefixtures("cpu")


def check(cell, reference, differentiable, constant=(), weight=None, tolerance=2e-5, seed=0):
    """Compare a Cell to its reference, and its gradients to the reference's finite differences.

    Args:
        cell, reference: functions of (*differentiable, *constant); the reference in float64.
        weight: factor of each output in the number whose gradient is taken; drawn by default.
        tolerance: largest error allowed, relative to the largest number of the array.
    """
    random = np.random.default_rng(seed)
    wide = [np.asarray(x, np.float64) for x in differentiable]
    expected = reference(*wide, *constant)
    if weight is None:
        weight = random.standard_normal(expected.shape)
    tensors = [ms.Tensor(np.asarray(x, np.float32)) for x in differentiable]
    constants = [ms.Tensor(x) for x in constant]
    factor = ms.Tensor(np.asarray(weight, np.float32))

    def loss(*inputs):
        out = cell(*inputs, *constants)
        return (out * factor).sum(), out

    positions = tuple(range(len(tensors)))
    (_, out), gradients = ms.value_and_grad(loss, positions, None, has_aux=True)(*tensors)
    gradients = (gradients,) if len(tensors) == 1 else gradients
    seen = weight != 0
    assert_near(out.asnumpy()[seen], expected[seen], tolerance)

    def number(place, change):
        moved = list(wide)
        moved[place] = wide[place] + change
        return (reference(*moved, *constant) * weight).sum()

    for place, (x, gradient) in enumerate(zip(wide, gradients)):
        gradient = gradient.asnumpy().astype(np.float64)
        assert gradient.shape == x.shape
        scale = np.abs(gradient).max() + 1e-2
        for change in directions(x, random):
            slope = (number(place, change * 1e-5) - number(place, -change * 1e-5)) / 2e-5
            size = np.sqrt((change**2).sum())
            assert abs((gradient * change).sum() - slope) < 5 * tolerance * scale * size


def directions(x, random):
    """Single coordinates and whole random directions."""
    for index in random.choice(x.size, min(x.size, 6), replace=False):
        one = np.zeros(x.size)
        one[index] = 1
        yield one.reshape(x.shape)
    for _ in range(3):
        yield random.standard_normal(x.shape)


def assert_near(actual, expected, tolerance):
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= tolerance * max(1, np.abs(expected).max())


@both_forms
@pytest.mark.parametrize("output", [0, 1])  # the sum, and the normalised sum
@pytest.mark.parametrize("N, D", [(1, 16), (7, 32), (1030, 48)])  # blocks of 512 in the kernel
def test_add_rms_norm(form, N, D, output):
    random = np.random.default_rng(1)
    x, branch = random.standard_normal((N, D)) * 3, random.standard_normal((N, D))
    gain = random.standard_normal(D)

    def reference(x, branch, gain):
        total = x + branch
        return (total, total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-6) * gain)[output]

    cell = operators.add_rms_norm(1e-6, form)
    check(lambda *inputs: cell(*inputs)[output], reference, (x, branch, gain))


@both_forms
def test_add_rms_norm_adds_the_gradients_of_both_outputs(form):
    random = np.random.default_rng(11)
    x, branch = random.standard_normal((5, 16)), random.standard_normal((5, 16))
    gain, share = random.standard_normal(16), random.standard_normal((5, 16)).astype(np.float32)

    def reference(x, branch, gain):
        total = x + branch
        normed = total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-6) * gain
        return total * share + normed

    cell = operators.add_rms_norm(1e-6, form)

    def both(*inputs):
        total, normed = cell(*inputs)
        return total * ms.Tensor(share) + normed

    check(both, reference, (x, branch, gain))


@both_forms
@pytest.mark.parametrize("N, H, K", [(5, 1, 2), (300, 3, 16)])
def test_rotary(form, N, H, K):
    random = np.random.default_rng(2)
    x, angle = random.standard_normal((N, H, K)), random.uniform(-9, 9, (N, K // 2))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def reference(x, cos, sin):
        z = x[..., : K // 2] + 1j * x[..., K // 2 :]
        turned = z * (cos.astype(np.float64) + 1j * sin)[:, None]
        return np.concatenate((turned.real, turned.imag), -1)

    check(operators.rotary(form), reference, (x,), (cos, sin))


@both_forms
@pytest.mark.parametrize("N, H, K", [(5, 1, 2), (300, 3, 16)])  # blocks of 128 in the kernel
def test_normed_rotary(form, N, H, K):
    random = np.random.default_rng(12)
    x, gain = random.standard_normal((N, H, K)) * 2, random.standard_normal(K)
    angle = random.uniform(-9, 9, (N, K // 2))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def reference(x, gain, cos, sin):
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gain
        z = y[..., : K // 2] + 1j * y[..., K // 2 :]
        turned = z * (cos.astype(np.float64) + 1j * sin)[:, None]
        return np.concatenate((turned.real, turned.imag), -1)

    check(operators.normed_rotary(1e-6, form), reference, (x, gain), (cos, sin))


@both_forms
@pytest.mark.parametrize("N, F", [(3, 5), (1300, 64)])
def test_swiglu(form, N, F):
    random = np.random.default_rng(3)
    gate, up = random.standard_normal((N, F)) * 4, random.standard_normal((N, F))

    def reference(gate, up):
        return gate / (1 + np.exp(-gate)) * up

    check(operators.swiglu(form), reference, (gate, up))


@both_forms
def test_swiglu_of_large_gates(form):
    gate = ms.Tensor(np.array([[-200.0, -90.0, 90.0, 200.0]], np.float32))
    out = operators.swiglu(form)(gate, ms.Tensor(np.ones((1, 4), np.float32)))
    assert_near(out.asnumpy(), np.array([[0.0, 0.0, 90.0, 200.0]]), 1e-6)


@both_forms
@pytest.mark.parametrize("M, V", [(4, 9), (150, 700)])
def test_cross_entropy(form, M, V):
    random = np.random.default_rng(4)
    logits = random.standard_normal((M, V)) * 5
    ranges = np.sort(random.integers(0, V + 1, (M, 2)), 1).astype(np.int32)
    ranges[ranges[:, 0] == ranges[:, 1]] = (0, V)
    ranges[0] = (0, V)
    ranges[1] = (V - 1, V)  # one id: its loss is 0
    targets = np.array([random.integers(low, high) for low, high in ranges], np.int32)
    weight = random.standard_normal(M) * (random.random(M) > 0.3)

    def reference(logits, targets, ranges):
        losses = []
        for x, target, (low, high) in zip(logits, targets, ranges):
            largest = x[low:high].max()
            losses.append(largest + np.log(np.exp(x[low:high] - largest).sum()) - x[target])
        return np.array(losses)

    check(operators.cross_entropy(form), reference, (logits,), (targets, ranges), weight)


@both_forms
def test_cross_entropy_gradient_is_zero_outside_the_range_and_at_zero_weight(form):
    logits = ms.Tensor(np.random.default_rng(5).standard_normal((3, 8)).astype(np.float32))
    targets = ms.Tensor(np.array([3, 3, 0], np.int32))
    ranges = ms.Tensor(np.array([[2, 5], [2, 5], [0, 1]], np.int32))
    weights = ms.Tensor(np.array([1.0, 0.0, 1.0], np.float32))
    cell = operators.cross_entropy(form)
    gradient = ms.grad(lambda x: (cell(x, targets, ranges) * weights).sum())(logits).asnumpy()
    assert (gradient[0, [0, 1, 5, 6, 7]] == 0).all() and (gradient[0, 2:5] != 0).all()
    assert (gradient[1:] == 0).all()


def attention_reference(q, k, v, segment, span):
    """Token by token, in loops; rows of padding give zeros."""
    B, L = segment.shape
    H, G, K = q.shape[1], k.shape[1], q.shape[2]
    out = np.zeros_like(q)
    place = np.arange(L)
    for b in range(B):
        for i in range(L):
            if segment[b, i] == 0:
                continue
            seen = (segment[b] == segment[b, i]) & (
                (place <= i) | ((span[b] == span[b, i]) & (span[b, i] > 0))
            )
            keys = b * L + np.flatnonzero(seen)
            for h in range(H):
                g = h // (H // G)
                scores = k[keys, g] @ q[b * L + i, h] / np.sqrt(K)
                p = np.exp(scores - scores.max())
                out[b * L + i, h] = p @ v[keys, g] / p.sum()
    return out


def draw_rows(random, B, L):
    """Segments one after another, spans within them, padding at the end of some rows."""
    segment, span = np.zeros((B, L), np.int32), np.zeros((B, L), np.int32)
    for b in range(B):
        place, number = 0, 0
        end = L if b == 0 else int(random.integers(L // 2, L + 1))
        while place < end:
            number += 1
            longest = L if b == 0 and number == 2 else max(2, L // 2)
            stop = min(end, place + int(random.integers(longest // 2, longest)))
            segment[b, place:stop] = number
            first, spans = place, 0
            while first < stop and random.random() < 0.8:
                first += int(random.integers(0, 3))
                last = min(stop, first + int(random.integers(1, 9)))
                spans += 1
                span[b, first:last] = spans  # neighbours may touch: numbers keep them apart
                first = last
            place = stop
    return segment, span


@both_forms
@pytest.mark.parametrize(
    "B, L, H, G, K",
    [
        (3, 19, 2, 2, 16),
        (2, 33, 4, 2, 32),
        (2, 24, 6, 1, 48),
        (2, 17, 2, 1, 10),  # a head size that fills no vector register
        (1, 260, 1, 1, 16),  # a long row
        (4, 1, 1, 1, 16),
    ],
)
def test_attention(form, B, L, H, G, K):
    random = np.random.default_rng(B * L)
    segment, span = draw_rows(random, B, L)
    q = random.standard_normal((B * L, H, K)) * 2
    k, v = random.standard_normal((2, B * L, G, K))
    weight = random.standard_normal((B * L, H, K)) * (segment.reshape(-1, 1, 1) > 0)
    check(operators.attention(form), attention_reference, (q, k, v), (segment, span), weight, 3e-5)


@needs_library
def test_compiled_attention_gives_zeros_for_padding():
    random = np.random.default_rng(6)
    segment = np.array([[1, 1, 2, 0, 0], [0, 0, 0, 0, 0]], np.int32)
    q, k, v = random.standard_normal((3, 10, 2, 16)).astype(np.float32)
    arrays = (*(ms.Tensor(x) for x in (q, k, v)), *(ms.Tensor(segment),) * 2)
    cell = operators.attention("compiled")

    def loss(q, k, v, segment, span):
        return (cell(q, k, v, segment, span) ** 2).sum()

    padding = segment.reshape(-1) == 0
    assert (cell(*arrays).asnumpy()[padding] == 0).all()
    for gradient in ms.grad(loss, (0, 1, 2))(*arrays):
        assert (gradient.asnumpy()[padding] == 0).all()
        assert (gradient.asnumpy()[~padding] != 0).any()


SHAPES = [(5, 7), (7,), (3, 4, 2), (), (300, 260)]  # the last one takes the kernel two blocks
SETTINGS = {"learning_rate": 0.05, "beta1": 0.8, "beta2": 0.9, "clip": 2.0}
# an epsilon that counts: with a tiny one, a gradient near zero moves by its rounding error's sign
SETTINGS |= {"epsilon": 1e-3, "weight_decay": 0.1}


class Quadratic(ms.nn.Cell):
    """sum over parameters p of sum (p - a)^2 / 2 * factor, coupled by their means."""

    def __init__(self, values, aims):
        super().__init__()
        self.p = ms.ParameterTuple(
            [ms.Parameter(ms.Tensor(x, ms.float32), name=f"p{i}") for i, x in enumerate(values)]
        )
        self.aims = [ms.Tensor(x, ms.float32) for x in aims]

    def construct(self, factor):
        loss, product = ms.ops.zeros((), ms.float32), ms.ops.ones((), ms.float32)
        for p, aim in zip(self.p, self.aims):
            loss = loss + ((p - aim) ** 2).sum() * 0.5 * factor
            product = product * (1.0 + p.mean())
        return loss + product


def quadratic_gradients(values, aims, factor):
    terms = [1 + p.mean() for p in values]
    product = np.prod(terms)
    loss = sum(((p - a) ** 2).sum() * 0.5 * factor for p, a in zip(values, aims)) + product
    return loss, [
        (p - a) * factor + product / term / p.size for p, a, term in zip(values, aims, terms)
    ]


def adamw_reference(values, first, second, gradients, step, rate):
    """Loshchilov and Hutter, algorithm 2, behind clipping by the global norm; in place."""
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    factor = min(1.0, SETTINGS["clip"] / (norm + 1e-6))
    beta1, beta2 = SETTINGS["beta1"], SETTINGS["beta2"]
    for i, gradient in enumerate(gradients):
        gradient = gradient * factor
        first[i] = beta1 * first[i] + (1 - beta1) * gradient
        second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
        m, v = first[i] / (1 - beta1**step), second[i] / (1 - beta2**step)
        decay = SETTINGS["weight_decay"] * (values[i].ndim > 1)
        values[i] = values[i] - rate * (m / (np.sqrt(v) + SETTINGS["epsilon"]) + decay * values[i])
    return norm


@both_forms
def test_adamw_and_that_all_reads_come_before_its_writes(form):
    """Several steps in one graph that reads the parameters beside the optimizer, against NumPy."""
    random = np.random.default_rng(8)
    values = [random.standard_normal(shape) * 0.3 for shape in SHAPES]
    aims = [random.standard_normal(shape) for shape in SHAPES]
    network = Quadratic(values, aims)
    rates = [0.05, 0.04, 0.03, 0.02, 0.01]
    settings = {**SETTINGS, "learning_rate": rates}
    optimizer = operators.AdamW(list(network.p), form=form, **settings)
    value_and_grad = ms.value_and_grad(network, None, network.p)

    @ms.jit
    def step(factor):
        before = [p * 1.0 for p in network.p]
        loss, gradients = value_and_grad(factor)
        return loss, before, optimizer(gradients)

    first, second = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
    for number, rate in enumerate(rates, start=1):
        factor = 1.0 if number < 4 else 1e-4  # the last two steps are not clipped
        loss, before, norm = step(ms.Tensor(factor, ms.float32))
        expected, gradients = quadratic_gradients(values, aims, factor)
        assert abs(float(loss) - expected) < 1e-4 * abs(expected)
        for actual, value in zip(before, values):
            assert_near(actual.asnumpy(), value, 1e-5)
        expected_norm = adamw_reference(values, first, second, gradients, number, rate)
        assert (expected_norm > SETTINGS["clip"]) == (number < 4)
        assert abs(float(norm.asnumpy()[0]) - expected_norm) < 1e-4 * expected_norm
        for parameter, value in zip(network.p, values):
            assert_near(parameter.asnumpy(), value, 1e-5)
    for moment, expected in zip((*optimizer.first, *optimizer.second), (*first, *second)):
        assert_near(moment.asnumpy(), expected, 1e-5)


@both_forms
def test_adamw_leaves_out_gradients_that_are_not_finite(form):
    parameters = [ms.Parameter(np.ones(3, np.float32), "a"), ms.Parameter(ms.Tensor(2.0), "b")]
    optimizer = operators.AdamW(parameters, 0.1, form=form)
    step = ms.jit(optimizer.construct)
    good = [ms.Tensor([1.0, 2.0, 3.0], ms.float32), ms.Tensor(0.5, ms.float32)]
    step(good)
    kept = [p.asnumpy().copy() for p in (*parameters, *optimizer.first, *optimizer.second)]
    for bad in (np.inf, -np.inf, np.nan):
        norm = step([ms.Tensor([1.0, bad, 3.0], ms.float32), good[1]])
        assert not np.isfinite(norm.asnumpy()).any()
    for parameter, before in zip((*parameters, *optimizer.first, *optimizer.second), kept):
        np.testing.assert_array_equal(parameter.asnumpy(), before)
    assert int(optimizer.global_step.asnumpy()[0]) == 1
    step(good)
    assert int(optimizer.global_step.asnumpy()[0]) == 2
    assert (parameters[0].asnumpy() < kept[0]).all()


@both_forms
def test_adamw_takes_the_scale_out_of_the_gradients(form):
    made = []
    for scale in (1.0, 1024.0):
        parameters = [ms.Parameter(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "a")]
        optimizer = operators.AdamW(parameters, 0.1, clip=0.5, form=form)
        step = ms.jit(optimizer.construct)
        for i in range(3):
            gradient = ms.Tensor(np.full((2, 3), 0.1 * (i + 1) * scale), ms.float32)
            norm = step([gradient], ms.Tensor([scale], ms.float32))
        made.append((norm.asnumpy(), parameters[0].asnumpy().copy()))
        assert norm.asnumpy()[0] == pytest.approx(0.3 * 6**0.5, rel=1e-5)
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-6)


@both_forms
def test_a_gradient_that_is_not_the_loss_s_has_no_scale(form):
    made = []
    for scale in (None, 4096.0):
        values = [ms.Parameter(np.ones(3, np.float32), name) for name in ("of_loss", "other")]
        marked_unscaled(values[1])
        step = operators.AdamW(values, 0.1, clip=0.01, form=form)
        for i in range(3):
            gradient = ms.Tensor(np.arange(3) * 1e-4 * (i - 0.5), ms.float32)
            if scale is None:
                norm = step([gradient, gradient])
            else:
                norm = step([gradient * scale, gradient], ms.Tensor([scale], ms.float32))
        made.append(np.concatenate([p.asnumpy() for p in (*values, norm)]))
    assert (made[0][4:6] != 1).all()
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5)


def test_look_up_and_sum_rows():
    random = np.random.default_rng(12)
    numbers = np.array([3, 0, 3, 1, 1, 1], np.int32)
    table, x = random.standard_normal((5, 4)), random.standard_normal((6, 4))
    check(operators.look_up(), lambda table, numbers: table[numbers], (table,), (numbers,))

    def reference(x, numbers):
        sums = np.zeros((5, 4))
        np.add.at(sums, numbers, x)
        return sums

    sum_rows = operators.sum_rows()
    check(lambda x, numbers: sum_rows(x, numbers, 5), reference, (x,), (numbers,))


@pytest.mark.parametrize("axis, start, length", [(0, 1, 3), (1, 0, 2), (2, 2, 1)])
def test_narrow(axis, start, length):
    x = np.random.default_rng(13).standard_normal((4, 2, 3))
    narrow = operators.narrow()
    places = [slice(None)] * 3
    places[axis] = slice(start, start + length)
    check(lambda x: narrow(x, axis, start, length), lambda x: x[tuple(places)], (x,))


def test_matmul_computes_in_the_compute_type():
    random = np.random.default_rng(14)
    x, weight = random.standard_normal((5, 8)), random.standard_normal((3, 8))
    check(operators.Matmul(), lambda x, weight: x @ weight.T, (x, weight))


def test_matrices_are_multiplied_each_with_its_own():
    random = np.random.default_rng(15)
    x, weight = random.standard_normal((2, 5, 8)), random.standard_normal((2, 3, 8))

    def reference(x, weight):
        return np.einsum("eni,eoi->eno", x, weight)

    check(operators.Matmul(batched=True), reference, (x, weight))


def test_running_sum():
    x = np.random.default_rng(16).standard_normal((7, 3))
    check(operators.running_sum(), lambda x: np.cumsum(x, 0), (x,))


def test_the_largest_are_found_in_order():
    x = np.random.default_rng(17).standard_normal((50, 6))
    x[0] = [2, -1, 2.5, 0, -3, 2.25]
    found = operators.largest()(ms.Tensor(x, ms.float32), 3)
    assert found.dtype == ms.int32 and found.asnumpy()[0].tolist() == [2, 5, 0]
    np.testing.assert_array_equal(found.asnumpy(), np.argsort(-x, 1)[:, :3])


def test_the_form_follows_the_device():
    chosen = type(operators.swiglu()).__name__
    assert chosen == ("CompiledSwiglu" if LIBRARY else "PlainSwiglu")
    assert operators.describe_forms().startswith("operators: ")
    with pytest.raises(ValueError, match="'fast' is not there"):
        operators.swiglu("fast")
