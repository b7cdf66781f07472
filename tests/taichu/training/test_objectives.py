"""The losses against loops in NumPy."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from taichu.config import CodecConfig, ModelConfig
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective, modality_of

CONFIG = ModelConfig(
    width=16, depth=1, heads=2, key_value_heads=1, head_size=8, hidden=16, embedding=6, pieces=0
)


@pytest.fixture
def objective(seeded, vocabulary):
    return Objective(
        Backbone(CONFIG, vocabulary.size, [(4, 6), (3, 4)]), vocabulary, alignment_weight=1.5
    )


def contrast_in_loops(left, right, group, caption, scale):
    losses, hits = [], []
    for i in range(len(group)):
        if group[i] < 0:
            continue
        others = [
            j
            for j in range(len(group))
            if j == i or (group[j] == group[i] and caption[j] != caption[i])
        ]
        forward = np.array([left[i] @ right[j] for j in others]) * scale
        backward = np.array([left[j] @ right[i] for j in others]) * scale
        own = others.index(i)
        for scores in (forward, backward):
            losses.append(np.log(np.exp(scores).sum()) - scores[own])
        hits.append(forward.argmax() == own)
    return np.mean(losses), np.mean(hits)


def test_infonce_with_groups_and_equal_captions(objective, seeded):
    E = 23
    left, right = seeded.standard_normal((2, E, 6))
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    group = seeded.integers(0, 3, E).astype(np.int32)
    caption = seeded.integers(0, 6, E).astype(np.int32)  # many are equal
    group[-4:] = caption[-4:] = -1  # unused places
    tensors = [ms.Tensor(x, ms.float32) for x in (left, right)]
    tensors += [ms.Tensor(x) for x in (group, caption)]
    loss, hit = objective.contrast(*tensors)
    expected, expected_hit = contrast_in_loops(left, right, group, caption, 1 / 0.14)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(hit) == pytest.approx(expected_hit, rel=1e-6)


def test_infonce_gradient(objective, seeded):
    """Against finite differences of the loops; unused places get none."""
    left, right = seeded.standard_normal((2, 7, 6)) * 0.5
    group = np.array([0, 0, 1, 0, 1, 0, -1], np.int32)
    caption = np.array([0, 1, 0, 0, 1, 2, -1], np.int32)

    def loss(left, right, group, caption):
        return objective.contrast(left, right, group, caption)[0]

    tensors = [ms.Tensor(x, ms.float32) for x in (left, right)]
    tensors += [ms.Tensor(x) for x in (group, caption)]
    gradients = [g.asnumpy() for g in ms.grad(loss, (0, 1))(*tensors)]
    for side, gradient in enumerate(gradients):
        assert (gradient[-1] == 0).all()
        for _ in range(5):
            change = seeded.standard_normal((7, 6)) * 1e-5
            moved = [[left, right], [left, right]]
            moved[0][side] = moved[0][side] + change
            moved[1][side] = moved[1][side] - change
            up, down = (contrast_in_loops(*m, group, caption, 1 / 0.14)[0] for m in moved)
            assert (gradient * change).sum() == pytest.approx((up - down) / 2, rel=1e-3, abs=1e-9)


def test_a_pair_alone_in_its_group_costs_nothing(objective, seeded):
    x = ms.Tensor(seeded.standard_normal((3, 6)), ms.float32)
    group = ms.Tensor(np.array([0, 1, -1], np.int32))
    loss, hit = objective.contrast(x, x, group, group)
    assert float(loss) == pytest.approx(0, abs=1e-6) and float(hit) == 1


def test_the_temperature_is_bounded(objective, seeded):
    left, right = seeded.standard_normal((2, 4, 6)) * 0.05
    index = np.arange(4, dtype=np.int32)
    group = np.zeros(4, np.int32)
    objective.backbone.log_scale.set_data(ms.Tensor([9.0], ms.float32))
    tensors = [ms.Tensor(x, ms.float32) for x in (left, right)]
    loss, _ = objective.contrast(*tensors, ms.Tensor(group), ms.Tensor(index))
    expected, _ = contrast_in_loops(left, right, group, index, 100.0)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_a_batch(objective, batch, vocabulary):
    tensors = [ms.Tensor(array) for array in batch.arrays()]
    loss, parts = objective(*tensors)
    backbone = objective.backbone
    hidden = backbone(*tensors[:5], *tensors[12:])
    logits = backbone.decode(hidden[ms.Tensor(batch.positions)]).asnumpy().astype(np.float64)
    losses = np.zeros(len(logits))
    for m, (target, (low, high)) in enumerate(zip(batch.targets, batch.ranges)):
        losses[m] = np.log(np.exp(logits[m, low:high]).sum()) - logits[m, target]
    vectors = backbone.embed(hidden, tensors[5], 10).asnumpy().reshape(5, 2, -1)
    pairs = batch.pair_group, batch.pair_caption
    alignment, hit = contrast_in_loops(vectors[:, 0], vectors[:, 1], *pairs, 1 / 0.14)
    expected = (losses * batch.weights).sum() + 1.5 * alignment
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    kind, used = modality_of(vocabulary)[batch.targets], batch.weights > 0
    means = [losses[used & (kind == index)].mean() for index in (0, 1)]
    np.testing.assert_allclose(parts.asnumpy(), [alignment, hit, *means, 0], rtol=1e-4)


def test_each_part_can_be_left_out(objective, batch, vocabulary):
    tensors = [ms.Tensor(array) for array in batch.arrays()]
    whole, parts = objective(*tensors)
    alignment = float(parts[0])
    for settings, expected in (
        ({"alignment_weight": 0.0}, float(whole) - 1.5 * alignment),
        ({"alignment_weight": 2.0, "decoding": False}, 2 * alignment),
    ):
        loss, some = Objective(objective.backbone, vocabulary, **settings)(*tensors)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        assert some.shape == parts.shape


@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_fill_the_table_up_change_nothing(seeded, batch, vocabulary, tied):
    """They are neither looked up nor decoded, whatever they hold, and get no gradient."""
    codecs = {"image": CodecConfig((2, 2, 2)), "audio": CodecConfig((5,))}
    config = replace(CONFIG, tied=tied, modalities={"image": {}, "audio": {}}, codecs=codecs)
    tensors, made = [ms.Tensor(array) for array in batch.arrays()], []
    for multiple in (1, 1000):
        filled = replace(config, rows_multiple=multiple)
        objective = Objective(Backbone(filled, vocabulary.size, [(4, 6), (3, 4)]), vocabulary)
        parameters = objective.trainable_params()
        if made:
            for parameter, value in zip(parameters, made[0][2]):
                rows = np.full(parameter.shape, 9.0, np.float32)
                rows[: len(value)] = value
                parameter.set_data(ms.Tensor(rows))
        values = [parameter.asnumpy().copy() for parameter in parameters]
        value_and_grad = ms.value_and_grad(objective, None, parameters, has_aux=True)
        (loss, _), gradients = value_and_grad(*tensors)
        made.append((float(loss), [g.asnumpy() for g in gradients], values))
    assert made[1][0] == pytest.approx(made[0][0], rel=1e-6)
    longer = 0
    for expected, actual in zip(made[0][1], made[1][1]):
        np.testing.assert_allclose(actual[: len(expected)], expected, rtol=1e-4, atol=1e-6)
        assert not actual[len(expected) :].any()
        longer += len(actual) == 1000
    assert longer == 2 - tied
