"""The Ascend forms, run on this machine with kernels that compute what MindSpore documents.

A call of a function that only an Ascend runs is bound to the signature of the installed MindSpore,
so that one that was renamed, moved or given other arguments is found; what comes out must be what
the plain form computes. What the chip's own kernels compute is not known here.
"""

import importlib
import inspect
import mmap
import pkgutil

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops
from mindspore.ops.auto_generate import AdamW, IndexSelect
from mindspore.ops.composite.multitype_ops import add_impl

from ascend import operators
from ascend.kernel_check.standins import plugin_folder
from ascend.operators.adamw import AscendUpdate, PlainUpdate
from ascend.operators.attention import FlashAttention, PlainAttention
from ascend.operators.gradient_sum import sum_gradients_by_add

pytestmark = pytest.mark.usefixtures("cpu")

KERNELS = {  # by form: aclnn's, forward and backward
    "AscendAddRmsNorm": "RmsNorm RmsNormGrad AddRmsNorm",  # the last one by MindSpore's fusion
    "AscendAssign": "InplaceCopy",
    "AscendLargest": "Topk",
    "AscendLookUp": "IndexSelect IndexAdd",
    "AscendNarrow": "SplitWithSize",
    "AscendNormedRotary": "RmsNorm RmsNormGrad RotaryPositionEmbedding",
    "AscendRotary": "RotaryPositionEmbedding",
    "AscendRunningSum": "Cumsum",
    "AscendSumRows": "IndexAdd IndexSelect",
    "AscendSwiglu": "SwiGlu SwiGluGrad",
    "AscendUpdate": "ApplyAdamWV2",
    "FlashAttention": "FlashAttentionScore FlashAttentionScoreGrad",
}


class Kernel:
    """Stands for a function of MindSpore: takes its arguments alone, computes in float64."""

    def __init__(self, real, compute):
        self.signature, self.compute, self.calls = inspect.signature(real), compute, 0

    def __call__(self, *arguments, **named):
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        self.calls += 1
        return self.compute(**bound.arguments)


def wide(x) -> np.ndarray:
    return x.asnumpy().astype(np.float64)


def tensor(x, like) -> ms.Tensor:
    return ms.Tensor(np.asarray(x), like.dtype)


def rms_norm(x, gamma, epsilon):
    assert gamma.dtype == x.dtype and 0 < epsilon < 1
    rms = np.sqrt((wide(x) ** 2).mean(-1, keepdims=True) + epsilon)
    return tensor(wide(x) / rms * wide(gamma), x), ms.Tensor(1 / rms, ms.float32)


def swiglu(input, dim):
    gate, up = np.split(wide(input), 2, dim)
    return tensor(gate / (1 + np.exp(-gate)) * up, input)


def rotary_position_embedding(x, cos, sin, mode):
    assert mode == 0 and x.dtype == cos.dtype == sin.dtype and x.ndim == cos.ndim == sin.ndim == 4
    first, second = np.split(wide(x), 2, -1)
    turned = np.concatenate((-second, first), -1)
    return tensor(wide(x) * wide(cos) + turned * wide(sin), x)


def flash_attention_score(query, key, value, head_num, attn_mask, scalar_value, **others):
    """Layout BSND; the mask (B, 1, S, S) is 1 where a key is hidden."""
    settings = {"keep_prob": 1.0, "inner_precise": 0, "input_layout": "BSND", "sparse_mode": 1}
    settings |= {"pre_tokens": 2147483647, "next_tokens": 2147483647}
    assert {k: v for k, v in others.items() if v is not None} == settings
    B, S, N, D = query.shape
    assert N == head_num and query.dtype in (ms.float16, ms.bfloat16)
    assert attn_mask.shape == (B, 1, S, S) and attn_mask.dtype in (ms.bool_, ms.uint8)
    q, k, v = (wide(x).transpose(0, 2, 1, 3) for x in (query, key, value))
    k, v = (np.repeat(x, N // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * scalar_value
    scores = np.where(attn_mask.asnumpy().astype(bool), -np.inf, scores)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    out = (p / p.sum(-1, keepdims=True)) @ v
    return tensor(out.transpose(0, 2, 1, 3), query)


def index_select(input, dim, index):
    return tensor(np.take(input.asnumpy(), index.asnumpy(), dim), input)


def adamw(var, m, v, max_v, gradient, step, lr, beta1, beta2, decay, eps, amsgrad, maximize):
    """Steps are counted from 0, as `mint.optim.AdamW` does."""
    assert not amsgrad and not maximize and step.dtype == ms.float32
    assert all(isinstance(x, (int, float)) for x in (lr, beta1, beta2, decay, eps))
    t, g = float(step.asnumpy().item()) + 1, wide(gradient)
    first, second = beta1 * wide(m) + (1 - beta1) * g, beta2 * wide(v) + (1 - beta2) * g * g
    m_hat, v_hat = first / (1 - beta1**t), second / (1 - beta2**t)
    changed = wide(var) * (1 - lr * decay) - lr * m_hat / (np.sqrt(v_hat) + eps)
    for parameter, value in ((var, changed), (m, first), (v, second)):
        parameter.set_data(tensor(value, parameter))
    return var, m, v


@pytest.fixture
def on_ascend(monkeypatch):
    """MindSpore with kernels for what only an Ascend runs; gives them by name."""
    made = {}
    for compute in (rms_norm, swiglu, rotary_position_embedding, flash_attention_score):
        name = compute.__name__
        made[name] = Kernel(getattr(ops, name), compute)
        monkeypatch.setattr(f"mindspore.ops.{name}", made[name])
    made["index_select"] = Kernel(IndexSelect().__call__, index_select)
    monkeypatch.setattr("mindspore.mint.index_select", made["index_select"])
    made["adamw"] = Kernel(AdamW().__call__, adamw)
    monkeypatch.setattr("ascend.operators.adamw.AscendAdamW", lambda: made["adamw"])
    return made


def draw(*shape, seed=0, kind=ms.float32) -> ms.Tensor:
    return ms.Tensor(np.random.default_rng(seed).standard_normal(shape), kind)


def assert_equal(ours, plain, tolerance=2e-6):
    ours, plain = (x if isinstance(x, tuple) else (x,) for x in (ours, plain))
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(wide(a), wide(b), tolerance, tolerance)


def turns(N, K):
    angle = np.random.default_rng(3).uniform(-9, 9, (N, K // 2))
    return ms.Tensor(np.cos(angle), ms.float32), ms.Tensor(np.sin(angle), ms.float32)


def test_add_rms_norm(on_ascend):
    inputs = draw(5, 16), draw(5, 16, seed=1), draw(16, seed=2)
    ours, plain = (operators.add_rms_norm(1e-6, form)(*inputs) for form in ("ascend", "plain"))
    assert_equal(ours, plain)
    half = [x.astype(ms.float16) for x in inputs[:2]]
    out = operators.add_rms_norm(1e-6, "ascend")(*half, inputs[2])  # the gain stays float32
    assert out[1].dtype == ms.float16 and on_ascend["rms_norm"].calls == 2


def test_rotary_and_its_gradient(on_ascend):
    x, dout, angles = draw(5, 2, 8), draw(5, 2, 8, seed=1), turns(5, 8)
    ours, plain = (operators.rotary(form) for form in ("ascend", "plain"))
    assert_equal(ours(x, *angles), plain(x, *angles))
    gradient = ms.grad(lambda x: (plain(x, *angles) * dout).sum())(x)
    assert_equal(ours.bprop(x, *angles, None, dout)[0], gradient)
    assert on_ascend["rotary_position_embedding"].calls == 2


def test_normed_rotary(on_ascend):
    inputs = draw(5, 2, 8), draw(8, seed=1), *turns(5, 8)
    ours, plain = (operators.normed_rotary(1e-6, form)(*inputs) for form in ("ascend", "plain"))
    assert_equal(ours, plain)
    assert on_ascend["rms_norm"].calls == on_ascend["rotary_position_embedding"].calls == 1


def test_swiglu(on_ascend):
    inputs = draw(5, 6), draw(5, 6, seed=1)
    ours, plain = (operators.swiglu(form)(*inputs) for form in ("ascend", "plain"))
    assert_equal(ours, plain)
    assert on_ascend["swiglu"].calls == 1


@pytest.mark.parametrize("H, G", [(2, 2), (4, 2)])
def test_attention(on_ascend, H, G):
    """With segments, spans that look ahead, and padding, which sees padding."""
    segment = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]], np.int32)
    span = np.array([[0, 1, 1, 0, 0, 0], [2, 2, 2, 0, 0, 0]], np.int32)
    q, k, v = (draw(12, n, 8, seed=n + i, kind=ms.float16) for i, n in enumerate((H, G, G)))
    inputs = q, k, v, ms.Tensor(segment), ms.Tensor(span)
    ours, plain = (cell(*inputs) for cell in (FlashAttention(), PlainAttention()))
    assert_equal(ours, plain, 5e-3)
    assert on_ascend["flash_attention_score"].calls == 1


def test_look_up_and_sum_rows_and_their_gradients(on_ascend):
    table, x, numbers = draw(5, 4), draw(6, 4, seed=1), ms.Tensor([3, 0, 3, 1, 1, 1], ms.int32)
    look_up = [operators.look_up(form) for form in ("ascend", "plain")]
    assert_equal(*(cell(table, numbers) for cell in look_up))
    assert_equal(*(cell.bprop(table, numbers, None, x)[0] for cell in look_up))
    sum_rows = [operators.sum_rows(form) for form in ("ascend", "plain")]
    assert_equal(*(cell(x, numbers, 5) for cell in sum_rows))
    assert_equal(*(cell.bprop(x, numbers, 5, None, table)[0] for cell in sum_rows))
    assert on_ascend["index_select"].calls == 2


@pytest.mark.parametrize("axis, start, length", [(0, 1, 3), (1, 0, 2), (2, 2, 1), (0, 0, 2)])
def test_narrow(axis, start, length):
    x = draw(4, 2, 3)
    ours, plain = (operators.narrow(form)(x, axis, start, length) for form in ("ascend", "plain"))
    assert_equal(ours, plain)


def test_assign():
    parameter = ms.Parameter(draw(3, 2), "p")
    operators.assign("ascend")(parameter, draw(3, 2, seed=1))
    assert_equal(parameter, draw(3, 2, seed=1))


def test_adamw(on_ascend):
    """Three steps, the second of gradients that are not finite, clipped and with a scale;
    one parameter's rate is thrice the other's."""
    numbers, decays, kinds = (0.8, 0.9, 1e-3, 2.0), (0.1, 0.0), ((), ())

    def states():
        values = [draw(5, 4, seed=s) for s in range(3)], [draw(4, seed=s) for s in range(3)]
        values = [[a, ops.abs(b), ops.abs(c)] for a, b, c in values]
        names = ("value", "first", "second")
        return [
            ms.ParameterTuple([ms.Parameter(v[i] + 0.0, f"{n}{j}") for j, v in enumerate(values)])
            for i, n in enumerate(names)
        ]

    made = []
    for form in (AscendUpdate, PlainUpdate):
        update, state = form(numbers, decays, kinds, (1.0, 3.0)), states()
        steps = ms.Parameter(ms.Tensor([0], ms.int32), "steps")
        norms = []
        for number, bad in enumerate((0.0, np.inf, 0.0)):
            gradients = draw(5, 4, seed=9 + number) * 64.0 + bad, draw(4, seed=7) * 64.0
            rate, scale = ms.Tensor([0.05], ms.float32), ms.Tensor([64.0], ms.float32)
            norms.append(update(*state, steps, gradients, rate, scale))
        assert int(steps.asnumpy()[0]) == 2
        made.append((*(p for group in state for p in group), norms[0], norms[2]))
    assert_equal(*made, 1e-5)
    assert on_ascend["adamw"].calls == 4


def test_gradients_are_summed_where_mindspore_looks(monkeypatch):
    pair = (ms.tensor_type, ms.tensor_type)
    assert pair in [types for types, _ in add_impl._add_backward.entries]
    monkeypatch.setattr(add_impl, "_add_backward", ops.MultitypeFuncGraph("_add_backward"))
    sum_gradients_by_add()
    ((types, add),) = add_impl._add_backward.entries
    assert types == pair
    assert_equal(add(draw(3), draw(3, seed=1)), draw(3) + draw(3, seed=1))


def test_a_call_with_other_arguments_is_found(on_ascend):
    x = draw(2, 4)
    for wrong in ({"gain": x[0]}, {"gamma": x[0], "eps": 1e-6}):
        with pytest.raises(TypeError):
            ops.rms_norm(x, **wrong)


def ascend_forms() -> set[str]:
    names = set()
    for module in pkgutil.iter_modules(operators.__path__):
        if module.name.startswith("_"):
            continue
        members = vars(importlib.import_module(f"ascend.operators.{module.name}"))
        for name, member in members.items():
            ours = inspect.isclass(member) and member.__module__.startswith("ascend.operators")
            if ours and name.startswith(("Ascend", "Flash")):
                names.add(name)
    return names


def test_the_plugin_calls_these_kernels_of_aclnn():
    assert ascend_forms() == set(KERNELS)
    library = plugin_folder() / "libmindspore_ops_ascend.so"
    if not library.is_file():
        pytest.skip(f"{library.name} is not there: MindSpore's wheel has no Ascend plug-in")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for kernel in sorted({k for names in KERNELS.values() for k in names.split()}):
            assert text.find(f"\0aclnn{kernel}\0".encode()) > 0, kernel
        assert text.find(b"\0aclnnRmsNormOfTheMoon\0") == -1
