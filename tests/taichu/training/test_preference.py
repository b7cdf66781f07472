"""DPO's loss against NumPy in float64, finite differences, and what it teaches."""

import mindspore as ms
import numpy as np
import pytest

from taichu.config import build
from taichu.data.conversations.preference_batches import PreferenceBatch
from taichu.data.layout import GROUPED, Segment
from taichu.data.packing import BatchShape, pack_into_rows
from taichu.errors import ConfigError
from taichu.training.preference import (
    PARTS,
    PreferenceConfig,
    PreferenceObjective,
    compare,
)
from taichu.training.step import TrainingStep
from taichu.tuning.lora import Lora
from taichu.tuning.tuned import tune
from tests.taichu.tuning.trial import METHODS, SMALL, Trial, disturb

PAIRS = 3


@pytest.fixture
def batch(samples, vocabulary, cpu) -> PreferenceBatch:
    """Three pairs of answers about pictures, and room for a fourth."""
    rows, images = [[], [], []], [samples.patches("image") for _ in range(PAIRS)]
    for e in range(PAIRS):
        for side in range(2):
            one = Segment((images[e],), (samples.text(2 + e + 2 * side),), GROUPED)
            rows[(e + side) % 3].append((e, side, one))
    shape = BatchShape(3, 32, 40, PAIRS + 1, (("image", 24, 6), ("audio", 3, 4)))
    packed = pack_into_rows([[one for _, _, one in row] for row in rows], shape, vocabulary)
    packed.pair_group[:PAIRS] = 0
    answers = np.zeros(40, np.int32)
    for m in np.flatnonzero(packed.weights):
        row, column = divmod(packed.positions[m], 32)
        e, side, _ = rows[row][packed.segment[row, column] - 1]
        answers[m] = 2 * e + side
    reference = np.array([[-20, -33], [-26, -45], [-31, -40], [0, 0]], np.float32)
    return PreferenceBatch(packed, answers, reference, list(range(PAIRS)))


class Subject:
    """A backbone under a method, its objective and a batch."""

    def __init__(self, batch, vocabulary, method=None, **settings):
        self.batch, self.arrays = batch, [ms.Tensor(a) for a in batch.arrays()]
        self.trial = Trial(batch.packed, vocabulary, SMALL)
        self.tuned = tune(self.trial.backbone, method) if method else None
        config = build(PreferenceConfig, settings)
        self.config = config
        self.objective = PreferenceObjective(self.trial.backbone, vocabulary, config)

    def run(self):
        loss, parts = self.objective(*self.arrays)
        return float(loss.asnumpy()), parts.asnumpy()

    def expected(self):
        """(loss, parts) by loops over the answers' tokens, of the backbone's own logits."""
        backbone, packed, config = self.trial.backbone, self.batch.packed, self.config
        hidden = backbone(*map(ms.Tensor, (*packed.planes, *packed.patches)))
        logits = backbone.decode(hidden).asnumpy().astype(np.float64)
        log_p, tokens = np.zeros((PAIRS + 1, 2)), np.zeros((PAIRS + 1, 2))
        for m in np.flatnonzero(packed.weights):
            low, high = packed.ranges[m]
            row = logits[packed.positions[m]]
            e, side = divmod(self.batch.answers[m], 2)
            log_p[e, side] += row[packed.targets[m]] - np.log(np.exp(row[low:high]).sum())
            tokens[e, side] += 1
        rewards = config.beta * (log_p - self.batch.reference.astype(np.float64))[:PAIRS]
        margin = rewards[:, 0] - rewards[:, 1]
        right, wrong = np.log1p(np.exp(-margin)), np.log1p(np.exp(margin))
        losses = (1 - config.label_smoothing) * right + config.label_smoothing * wrong
        losses += config.chosen_weight * (-log_p / np.maximum(tokens, 1))[:PAIRS, 0]
        parts = [(margin > 0).mean(), margin.mean(), *rewards.mean(0)]
        return losses.mean(), np.array([*parts, *log_p.reshape(-1)])


@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 0.7}, {"label_smoothing": 0.2}, {"chosen_weight": 0.5, "beta": 0.3}],
)
def test_the_loss_and_its_parts_are_the_papers(batch, vocabulary, settings):
    subject = Subject(batch, vocabulary, **settings)
    loss, parts = subject.run()
    expected, expected_parts = subject.expected()
    assert loss == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(parts, expected_parts, rtol=2e-5, atol=1e-5)
    assert len(parts) == len(PARTS) + 2 * (PAIRS + 1) and 0 < expected_parts[0] < 1


def test_gradients_are_finite_differences(batch, vocabulary):
    """Of a LoRA factor, every loss's term in it."""
    settings = {"beta": 0.5, "label_smoothing": 0.1, "chosen_weight": 0.3}
    subject = Subject(batch, vocabulary, Lora(rank=2), **settings)
    trained = subject.tuned.trained
    disturb(trained.values())
    parameter = trained["blocks.0.feed_forward.down.lora_B"]
    step = TrainingStep(subject.objective, subject.tuned.optimizer(0.0))
    _, gradients = step.gradient(*subject.arrays)
    names = [p.name for p in step.optimizer.parameters]
    gradient = gradients[names.index(parameter.name)].asnumpy()
    value = parameter.asnumpy()
    for place in ((0, 0), (5, 1), (17, 0), (31, 1)):
        found = []
        for change in (1e-2, -1e-2):
            moved = value.copy()
            moved[place] += change
            parameter.set_data(ms.Tensor(moved))
            found.append(subject.expected()[0])
        difference = (found[0] - found[1]) / 2e-2
        assert abs(difference) > 1e-4
        assert gradient[place] == pytest.approx(difference, rel=2e-2)


def test_blocks_computed_again_give_the_same_gradients(batch, vocabulary):
    found = []
    for recompute in (False, True):
        subject = Subject(batch, vocabulary, Lora(rank=2), beta=0.5)
        disturb(subject.tuned.trained.values())
        optimizer = subject.tuned.optimizer(0.0)
        step = TrainingStep(subject.objective, optimizer, recompute=recompute)
        value, gradients = step.gradient(*subject.arrays)
        found.append([value[1].asnumpy(), *(g.asnumpy() for g in gradients)])
    for plain, again in zip(*found):
        np.testing.assert_allclose(plain, again, atol=1e-5)
    assert max(np.abs(g).max() for g in found[0][1:]) > 1e-3


@pytest.mark.parametrize("name", ["lora", "adalora", "ia3", "p_tuning_v2", "freeze"])
def test_a_method_begins_at_the_reference_and_learns_the_preference(batch, vocabulary, name):
    """At the first step nothing is preferred: the loss is log 2, and its gradient is not 0."""
    subject = Subject(batch, vocabulary, METHODS[name], beta=1.0)
    step = TrainingStep(subject.objective, subject.tuned.optimizer(2e-2))
    _, parts = step.evaluate(*subject.arrays)
    batch.reference[:] = parts.asnumpy()[len(PARTS) :].reshape(-1, 2)
    arrays = [ms.Tensor(a) for a in batch.arrays()]
    loss, _, norm = step(*arrays)
    assert float(loss.asnumpy()) == pytest.approx(np.log(2), abs=1e-5)
    assert float(norm.asnumpy()[0]) > 1e-3
    for _ in range(40):
        loss, parts, _ = step(*arrays)
    assert float(loss.asnumpy()) < 0.5 and parts.asnumpy()[0] == 1


def test_figures():
    log_p = np.array([[-1.0, -3.0], [-2.0, -1.0], [-4.0, -6.0], [-2.0, -2.0]])
    reference = np.array([[-2.0, -3.0], [-3.0, -1.0], [-3.0, -6.0], [-2.0, -2.0]])
    figures = compare(log_p, reference, 0.5)
    expected = {"accuracy": 0.5, "margin": 0.125, "chosen": 0.125, "rejected": 0.0, "likelier": 0.5}
    assert figures == expected


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"beta": 0}, "beta: must be above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing: must be from 0 to below 0.5"),
        ({"chosen_weight": -1}, "chosen_weight: must be at least 0"),
    ],
)
def test_settings(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        build(PreferenceConfig, settings)
