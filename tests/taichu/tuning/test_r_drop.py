"""R-Drop: two passes with other masks; and dropout in steps alone."""

import mindspore as ms
import numpy as np
import pytest

from taichu.errors import ConfigError
from taichu.training.objectives import Objective
from taichu.training.r_drop import RDropObjective, divergence
from taichu.training.step import TrainingStep
from taichu.tuning.lora import Lora
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.tuned import tune
from tests.taichu.tuning.trial import disturb


def test_the_divergence_is_that_of_two_distributions_in_a_range(seeded):
    p, q = (seeded.standard_normal((3, 9)) for _ in range(2))
    ranges = np.array([[0, 9], [2, 6], [0, 0]], np.int32)
    found = divergence(*(ms.Tensor(x, ms.float32) for x in (p, q)), ms.Tensor(ranges)).asnumpy()
    for i, (low, high) in enumerate(ranges[:2]):
        one, other = (np.exp(x[i, low:high]) / np.exp(x[i, low:high]).sum() for x in (p, q))
        both = (one * np.log(one / other)).sum() + (other * np.log(other / one)).sum()
        np.testing.assert_allclose(found[i], both / 2, rtol=1e-5)
    assert np.isfinite(found[2])


def test_both_passes_count_and_what_they_differ_by(trial, vocabulary):
    one = trial()
    tuned = tune(one.backbone, Lora(rank=4, dropout=0.5))
    disturb(tuned.trained.values())
    plain = one.loss()
    objective = RDropObjective(one.backbone, vocabulary, alignment_weight=0.0, r_drop=3.0)
    # without dropout both passes are the plain one
    assert abs(float(objective(*one.arrays)[0].asnumpy()) - plain) < 1e-5

    step = TrainingStep(objective, tuned.optimizer(0.0))  # nothing is learned
    losses = [float(step(*one.arrays)[0].asnumpy()) for _ in range(6)]
    assert len(set(losses)) == 6  # masks are drawn anew
    for _ in range(2):  # what is evaluated has none
        assert abs(float(step.evaluate(*one.arrays)[0].asnumpy()) - plain) < 1e-5


class Uneven(RDropObjective):
    """The second pass starts from other vectors, as if masks had made it differ."""

    def twice(self, x):
        return ms.ops.concat((x, x * 1.2 if x.dtype == ms.float32 else x), 0)


def test_the_loss_is_the_mean_of_both_and_their_divergence(trial, vocabulary):
    one = trial()
    backbone, arrays = one.backbone, one.arrays
    uneven = Uneven(backbone, vocabulary, alignment_weight=0.0, r_drop=3.0)
    losses, logs = [], []
    for factor in (1.0, 1.2):
        x, branch = backbone.read_tokens(arrays[0], arrays[1], *arrays[12:])
        x, branch = backbone.run_blocks(x * factor, branch * factor, *arrays[2:5])
        hidden = backbone.normalise(x, branch)
        losses.append(float(one.objective.loss(hidden, *arrays[5:12])[0].asnumpy()))
        logs.append(one.objective.logits(hidden, arrays[6]).asnumpy().astype(np.float64))
    apart = 0.0
    for i, (low, high) in enumerate(one.batch.ranges):
        if one.batch.weights[i]:
            p, q = (np.exp(x[i, low:high]) / np.exp(x[i, low:high]).sum() for x in logs)
            apart += one.batch.weights[i] * ((p - q) * np.log(p / q)).sum() / 2
    assert apart > 1e-3 and abs(losses[0] - losses[1]) > 1e-3
    found = float(uneven(*arrays)[0].asnumpy())
    np.testing.assert_allclose(found, sum(losses) / 2 + 3 * apart, rtol=1e-5)


def test_blocks_are_not_computed_again_with_other_masks(trial, vocabulary):
    refused = {
        "R-Drop": (Lora(rank=2), RDropObjective),
        "dropout": (Lora(rank=2, dropout=0.1), Objective),
        "a prefix": (PTuningV2(places=2), Objective),
    }
    for what, (method, kind) in refused.items():
        backbone = trial().backbone
        tuned = tune(backbone, method)
        with pytest.raises(ConfigError, match=f"train.recompute.*{what}"):
            TrainingStep(kind(backbone, vocabulary), tuned.optimizer(0.1), recompute=True)
