"""R-Drop: two passes with other dropout masks are to predict alike (Wu et al., 2106.14448)."""

import mindspore as ms
from mindspore import ops

from ascend import operators
from ascend.operators.masked import MASKED
from taichu.training.objectives import Objective


class RDropObjective(Objective):
    """`taichu.training.objectives.Objective`, the mean over two passes, plus what they differ by.

    L = (L_1 + L_2) / 2 + alpha * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2, of each decoded token's
    distribution in the range that it is decoded in, weighted as its loss is (section 2, equations
    2 to 4; their L_1 + L_2 is halved, so that the rate need not change with the switch). As there,
    both passes are one: the rows stand twice in the batch, from the first block on. The backbone
    has no dropout of its own; that of tuning methods is what differs, and where there is none both
    passes are equal.

    Args:
        r_drop: alpha, above 0 (the paper takes 1 to 5).
        others: as of `Objective`.
    """

    other_passes = "R-Drop"

    def __init__(self, *others, r_drop: float = 1.0, **settings):
        super().__init__(*others, **settings)
        self.r_drop, self.narrow = r_drop, operators.narrow()

    def construct(self, ids, source, coords, segment, span, *rest):
        backbone, (B, L) = self.backbone, ids.shape
        x_ND, branch_ND = backbone.read_tokens(ids, source, *rest[7:])
        planes = self.twice(coords), self.twice(segment), self.twice(span)
        x_ND, branch_ND = backbone.run_blocks(self.twice(x_ND), self.twice(branch_ND), *planes)
        hidden_ND = backbone.all_tokens(backbone.normalise(x_ND, branch_ND), L)
        first_ND = self.narrow(hidden_ND, 0, 0, B * L)
        second_ND = self.narrow(hidden_ND, 0, B * L, B * L)
        first, first_parts = self.loss(first_ND, *rest[:7])
        second, second_parts = self.loss(second_ND, *rest[:7])
        loss = 0.5 * (first + second)
        if self.decoding:
            _, positions, _, weights, ranges = rest[:5]
            logits = self.logits(first_ND, positions), self.logits(second_ND, positions)
            loss = loss + self.r_drop * (divergence(*logits, ranges) * weights).sum()
        return loss, 0.5 * (first_parts + second_parts)

    def twice(self, x):
        return ops.concat((x, x), 0)


def divergence(first_MV, second_MV, ranges_M2):
    """(KL(p || q) + KL(q || p)) / 2 of each two rows of logits, in their ranges; (M,)."""
    first_MV, second_MV = logs_in(ranges_M2, first_MV), logs_in(ranges_M2, second_MV)
    return 0.5 * ((ops.exp(first_MV) - ops.exp(second_MV)) * (first_MV - second_MV)).sum(-1)


def logs_in(ranges_M2, logits_MV):
    """Logarithms of the distribution that each row of logits has in its range, (M, V)."""
    place_V = ops.arange(logits_MV.shape[1]).astype(ms.int32).reshape((1, -1))
    start_M1, end_M1 = ranges_M2[:, 0:1], ranges_M2[:, 1:2]
    outside_MV = ops.logical_or(place_V < start_M1, place_V >= end_M1).astype(ms.float32)
    return ops.log_softmax(logits_MV.astype(ms.float32) + outside_MV * MASKED, -1)
