"""The layer of experts against NumPy in float64: outputs, what is dropped, gradients, balance."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ascend.operators import AdamW
from taichu.config import ModelConfig
from taichu.errors import ConfigError
from taichu.model.mixture_of_experts import BALANCE_GRADIENT, NEVER_DROPPED, ExpertFeedForward

CONFIG = ModelConfig(
    width=12,
    depth=2,
    heads=2,
    key_value_heads=1,
    head_size=8,
    hidden=20,
    embedding=6,
    pieces=0,
    experts=5,
    active_experts=2,
)
TIGHT = replace(CONFIG, expert_capacity=0.9)
TOKENS = 800  # beyond the number of which none is dropped


def draw_layer(config, random) -> ExpertFeedForward:
    """A layer whose balance is drawn too, so that loads differ."""
    layer = ExpertFeedForward(config)
    balance = random.normal(0, 0.15, config.experts)
    layer.router.balance.set_data(ms.Tensor(balance, ms.float32))
    return layer


def doubles(layer) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().astype(np.float64) for p in layer.trainable_params()}


def choose(config, parameters, x, padding=()):
    """Experts (N, k) of each token, and which choices find a place (N, k)."""
    score = 1 / (1 + np.exp(-x @ parameters["router.weight"].T))
    chosen = np.argsort(-(score + parameters["router.balance"]), 1)[:, : config.active_experts]
    mean = len(x) * config.active_experts / config.experts
    room = min(len(x), max(NEVER_DROPPED, np.ceil(mean * config.expert_capacity)))
    queue, placed = np.zeros(config.experts), np.zeros(chosen.shape, bool)
    for choice in range(config.active_experts):
        for token, expert in enumerate(chosen[:, choice]):
            if token in padding:
                continue
            placed[token, choice] = queue[expert] < room
            queue[expert] += 1
    return chosen, placed


def reference(parameters, x, chosen, placed):
    """The layer's output for choices that are made already."""
    score = 1 / (1 + np.exp(-x @ parameters["router.weight"].T))
    weight = np.take_along_axis(score, chosen, 1)
    weight = weight / weight.sum(1, keepdims=True)
    out = np.zeros_like(x)
    for expert, (gate, up, down) in enumerate(
        zip(*(parameters[f"layers.{name}"] for name in ("gate", "up", "down")))
    ):
        of_token = (weight * ((chosen == expert) & placed)).sum(1)
        g = x @ gate.T
        out += of_token[:, None] * ((g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T)
    return out


@pytest.mark.parametrize("config, some_dropped", [(CONFIG, False), (TIGHT, True)])
def test_outputs(seeded, config, some_dropped):
    config = config if some_dropped else replace(config, expert_capacity=5.0)
    layer, x = draw_layer(config, seeded), seeded.standard_normal((TOKENS, config.width))
    parameters = doubles(layer)
    chosen, placed = choose(config, parameters, x)
    assert placed.all() != some_dropped
    out = layer(ms.Tensor(x, ms.float32)).asnumpy()
    np.testing.assert_allclose(out, reference(parameters, x, chosen, placed), atol=2e-5)
    lost = ~placed.any(1)
    assert lost.any() == some_dropped
    assert (out[lost] == 0).all()


def test_padding_takes_no_place(seeded):
    layer, x = draw_layer(TIGHT, seeded), seeded.standard_normal((TOKENS, CONFIG.width))
    padding = set(range(100, 250)) | {TOKENS - 1}
    x[list(padding)] = x[0]
    segment = np.array([n not in padding for n in range(TOKENS)], np.int32).reshape(8, -1)
    parameters = doubles(layer)
    chosen, placed = choose(TIGHT, parameters, x, padding)
    out = layer(ms.Tensor(x, ms.float32), ms.Tensor(segment)).asnumpy()
    np.testing.assert_allclose(out, reference(parameters, x, chosen, placed), atol=2e-5)
    assert (out[list(padding)] == 0).all()


@pytest.mark.parametrize("config", [CONFIG, TIGHT], ids=["roomy", "tight"])
def test_gradients(seeded, config):
    """Against differences of the float64 reference, choices held."""
    layer, x = draw_layer(config, seeded), seeded.standard_normal((TOKENS, config.width))
    asked = seeded.standard_normal(x.shape)

    def loss(x, asked):
        return ops.sum(layer(x) * asked)

    parameters = ms.ParameterTuple(layer.trainable_params())
    gradient = ms.jit(ms.grad(loss, 0, parameters))
    of_x, of_parameters = gradient(ms.Tensor(x, ms.float32), ms.Tensor(asked, ms.float32))
    values = {**doubles(layer), "x": x}
    found = {p.name: g.asnumpy() for p, g in zip(parameters, of_parameters)} | {"x": of_x.asnumpy()}
    chosen, placed = choose(config, values, x)
    for name, value in values.items():
        if name == "router.balance":
            continue
        actual, step = found[name], 1e-4
        for _ in range(12):
            place = tuple(seeded.integers(0, n) for n in value.shape)
            ends = []
            for change in (step, -step):
                moved = {key: array.copy() for key, array in values.items()}
                moved[name][place] += change
                x_moved = moved.pop("x")
                ends.append((reference(moved, x_moved, chosen, placed) * asked).sum())
            expected = (ends[0] - ends[1]) / (2 * step)
            assert actual[place] == pytest.approx(expected, rel=1e-3, abs=2e-4), (name, place)


@pytest.mark.parametrize("scale", [1.0, -50.0])
def test_the_balance_s_gradient_is_the_excess_load(seeded, scale):
    """Whatever the loss; of what is asked for, dropped or not."""
    layer, x = draw_layer(TIGHT, seeded), seeded.standard_normal((TOKENS, CONFIG.width))
    chosen, _ = choose(TIGHT, doubles(layer), x)
    load = np.bincount(chosen.ravel(), minlength=5)

    def loss(x):
        return ops.sum(layer(x)) * scale

    gradient = ms.jit(ms.grad(loss, None, ms.ParameterTuple([layer.router.balance])))
    (actual,) = gradient(ms.Tensor(x, ms.float32))
    expected = BALANCE_GRADIENT * (load / load.mean() - 1)
    assert np.abs(expected).max() > 0.1 * BALANCE_GRADIENT
    np.testing.assert_allclose(actual.asnumpy(), expected, atol=1e-8)


class Copying(nn.Cell):
    """How far the layer's output is from its input."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, x):
        error = self.layer(x) - x
        return ops.sum(error * error) / x.shape[0]


def test_a_training_balances_the_load(seeded):
    """Tokens of one direction ask for the same experts, until the balance ends it: scores stay."""
    layer = ExpertFeedForward(CONFIG)
    layer.router.weight.requires_grad = False
    x = seeded.standard_normal((TOKENS, CONFIG.width)) + 2 * seeded.standard_normal(CONFIG.width)

    def worst() -> float:
        names = "router.weight", "router.balance"
        values = layer.router.weight.asnumpy(), layer.router.balance.asnumpy()
        chosen, _ = choose(CONFIG, dict(zip(names, values)), x)
        load = np.bincount(chosen.ravel(), minlength=5)
        return load.max() / load.mean()

    before = worst()
    objective = Copying(layer)
    optimizer = AdamW(objective.trainable_params(), 5e-3)
    gradient = ms.value_and_grad(objective, None, optimizer.parameters)

    def update(x):
        loss, gradients = gradient(x)
        return loss, optimizer(gradients)

    step = ms.jit(update)
    losses = [float(step(ms.Tensor(x, ms.float32))[0]) for _ in range(150)]
    assert before > 1.6 and worst() < 1.15
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("tokens", [1, 7, NEVER_DROPPED])
def test_few_tokens_lose_none(seeded, tokens):
    """All of them choose the same experts, as rows that are generated from one condition may."""
    config = replace(CONFIG, expert_capacity=0.01)
    layer = draw_layer(config, seeded)
    x = np.repeat(seeded.standard_normal((1, CONFIG.width)), tokens, 0)
    parameters = doubles(layer)
    chosen, placed = choose(config, parameters, x)
    out = layer(ms.Tensor(x, ms.float32)).asnumpy()
    expected = reference(parameters, x, chosen, np.ones_like(placed))
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_layers_start_like_dense_ones(seeded):
    """Each expert's matrices by its own inputs, so that outputs do not grow with their number."""
    config = replace(CONFIG, width=64, hidden=96, experts=8, depth=3)
    parameters = doubles(ExpertFeedForward(config))
    for name, deviation in (("gate", 64**-0.5), ("up", 64**-0.5), ("down", (6 * 96) ** -0.5)):
        of_expert = parameters[f"layers.{name}"].std((1, 2))
        np.testing.assert_allclose(of_expert, deviation, rtol=0.05)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="active_experts=6 must be from 2 to experts=5"):
        replace(CONFIG, active_experts=6)
    with pytest.raises(ConfigError, match="active_experts=1 must be from 2"):
        replace(CONFIG, active_experts=1)
    with pytest.raises(ConfigError, match="expert_capacity more than 0"):
        replace(CONFIG, expert_capacity=0.0)
