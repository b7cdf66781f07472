"""Direct preference optimisation (DPO, Rafailov et al., 2305.18290)."""

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ops

from ascend import operators
from ascend.ranks import mean_over_ranks
from taichu.data.conversations.preference_batches import PreferenceBatches
from taichu.errors import ConfigError
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective
from taichu.vocabulary import JointIds

PARTS = ("accuracy", "margin", "chosen", "rejected")


@dataclass(frozen=True)
class PreferenceConfig:
    """What of the preferences is learned."""

    beta: float = 0.1  # of equation 7: the larger, the nearer to the reference
    label_smoothing: float = 0.0  # share of pairs taken to be the wrong way round
    chosen_weight: float = 0.0  # of the chosen answers' own loss

    def __post_init__(self):
        if not self.beta > 0:
            raise ConfigError(f"beta: must be above 0, not {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing: must be from 0 to below 0.5, not {self.label_smoothing}"
            )
        if self.chosen_weight < 0:
            raise ConfigError(f"chosen_weight: must be at least 0, not {self.chosen_weight}")


class PreferenceObjective(Objective):
    """DPO's loss of one batch of preferences, the mean over its pairs (2305.18290, equation 7):

        r = beta * (log pi(answer) - log pi_ref(answer)),    L = -log sigmoid(r_chosen - r_rejected)

    An answer's log-probability is the sum over its tokens, each in the range it is decoded in. The
    loss is the cross-entropy of choosing between both by their rewards r (Bradley and Terry's
    model, equation 1). With ``label_smoothing`` e it is (1 - e) L + e L' where L' is that of the
    answers exchanged (Mitchell's conservative DPO). ``chosen_weight`` adds so much of the chosen
    answers' -log pi a token (2404.19733, equation 1).

    Args:
        backbone: the policy.
        vocabulary: for the range each modality is decoded in.
        config: see `PreferenceConfig`.

    Inputs: the arrays of a `PreferenceBatch`, in order.
    Output: (loss, parts): a number, and (4 + 2 E,) float32: share of pairs whose chosen answer has
        the larger reward, mean of r_chosen - r_rejected, of r_chosen, of r_rejected; and
        log pi of each pair's chosen and rejected answer, 0 for unused places.
    """

    before_patches = 14

    def __init__(self, backbone: Backbone, vocabulary: JointIds, config: PreferenceConfig):
        super().__init__(backbone, vocabulary, alignment_weight=0.0)
        self.beta, self.smoothing = config.beta, config.label_smoothing
        self.chosen_weight = config.chosen_weight
        self.sum_rows = operators.sum_rows()

    def construct(self, ids, source, coords, segment, span, *rest):
        hidden_ND = self.backbone(ids, source, coords, segment, span, *rest[9:])
        return self.loss(hidden_ND, *rest[:9])

    def loss(
        self,
        hidden_ND,
        pool,
        positions,
        targets,
        weights,
        ranges,
        pair_group,
        pair_caption,
        answers,
        reference_E2,
    ):
        losses_M = self.cross_entropy(self.logits(hidden_ND, positions), targets, ranges)
        log_p_E2, tokens_E2 = self.sum_answers(losses_M, weights, answers, reference_E2.shape[0])
        rewards_E2 = self.beta * (log_p_E2 - reference_E2)
        used_E = (pair_group >= 0).astype(ms.float32)
        share_E = used_E / ops.clamp(used_E.sum(), 1.0)
        losses_E = self.choose(rewards_E2, 0)
        if self.smoothing > 0:
            wrong_E = self.choose(rewards_E2, 1)
            losses_E = (1.0 - self.smoothing) * losses_E + self.smoothing * wrong_E
        if self.chosen_weight > 0:
            a_token_E = -self.side(log_p_E2, 0) / ops.clamp(self.side(tokens_E2, 0), 1.0)
            losses_E = losses_E + self.chosen_weight * a_token_E
        parts = self.parts(ops.stop_gradient(rewards_E2), share_E)
        log_p_A = ops.stop_gradient(log_p_E2).reshape((-1,))
        return (losses_E * share_E).sum(), ops.concat((parts, log_p_A))

    def sum_answers(self, losses_M, weights_M, answers_M, E: int):
        """(log-probability, tokens) of each pair's answers, (E, 2)."""
        learned_M = (weights_M > 0).astype(ms.float32)
        both_M2 = ops.stack((-losses_M * learned_M, learned_M), 1)
        both_A2 = self.sum_rows(both_M2, answers_M, 2 * E)
        log_p_A, tokens_A = self.side(both_A2, 0), self.side(both_A2, 1)
        return log_p_A.reshape((E, 2)), tokens_A.reshape((E, 2))

    def choose(self, rewards_E2, side: int):
        """-log of the probability that this side is preferred, (E,)."""
        E = rewards_E2.shape[0]
        both_E2 = ops.broadcast_to(ops.arange(0, 4, 2).astype(ms.int32), (E, 2))
        side_E = ops.zeros((E,), ms.int32) + side
        return self.cross_entropy(rewards_E2, side_E, both_E2)

    def parts(self, rewards_E2, share_E):
        """Those of `PARTS`; for the log only."""
        chosen_E, rejected_E = self.side(rewards_E2, 0), self.side(rewards_E2, 1)
        margin_E = chosen_E - rejected_E
        above_E = (margin_E > 0).astype(ms.float32)
        row = ()
        for part_E in (above_E, margin_E, chosen_E, rejected_E):
            row += ((part_E * share_E).sum().reshape((1,)),)
        return ops.concat(row)

    def side(self, x_n2, side: int):
        return self.narrow(x_n2, 1, side, 1).reshape((-1,))


def log_probabilities(
    evaluate: Callable, batches: PreferenceBatches, pairs: list[int]
) -> np.ndarray:
    """Of the chosen and the rejected answer of pairs, (pairs, 2) float32; the ranks share them out.

    Args:
        evaluate: `taichu.training.trainer.Trainer.evaluate` of a `PreferenceObjective`.
        batches: that hold them.
        pairs: their numbers.
    """
    found, axis = np.zeros((batches.count, 2), np.float32), batches.axis
    for number, batch in enumerate(batches.once(pairs)):
        if number % axis.size == axis.index:
            log_p = evaluate(*batch.arrays())[1].asnumpy()[len(PARTS) :]
            found[batch.pairs] = log_p.reshape(-1, 2)[: len(batch.pairs)]
    return mean_over_ranks(found[pairs]) * np.float32(axis.size)


def compare(log_p: np.ndarray, reference: np.ndarray, beta: float) -> dict[str, float]:
    """Figures of log-probabilities (pairs, 2) beside the reference's: `PARTS`, and as ``likelier``
    the share of pairs whose chosen answer is the likelier one."""
    chosen, rejected = (beta * (log_p - reference)).T
    figures = {
        "accuracy": (chosen > rejected).mean(),
        "margin": (chosen - rejected).mean(),
        "chosen": chosen.mean(),
        "rejected": rejected.mean(),
        "likelier": (log_p[:, 0] > log_p[:, 1]).mean(),
    }
    return {name: round(float(figure), 5) for name, figure in figures.items()}
