"""The loss of a packed batch: decoding of the chosen positions and alignment of the pairs."""

import math

import mindspore as ms
from mindspore import nn, ops

from ascend import operators
from ascend.device_matrix import device_matrix
from ascend.operators.masked import MASKED
from taichu.model.backbone import Backbone
from taichu.vocabulary import TEXT, JointIds, modality_of

LARGEST_LOG_SCALE = math.log(100.0)  # of alignment's scores, CLIP's bound


class Objective(nn.Cell):
    """Loss of one packed batch.

    L = L_decoding + alpha * L_alignment (VALOR 2304.08345, eq. 7, with each part switchable).

    Args:
        backbone: the model.
        vocabulary: for the range each modality is decoded in.
        alignment_weight: alpha; 0 leaves the alignment out of the graph.
        decoding: False leaves the decoding head out of the graph.

    Inputs: the arrays of a `PackedBatch`, in order.
    Output: (loss, parts): a number, and (2 + modalities,) float32: alignment loss, share of pairs
        whose text finds its media first in the batch, and the mean loss of each decoded modality
        (0 where none was decoded).

    Attributes:
        part_names: what a log calls the parts, in order.
    """

    before_patches = 12  # arrays of a batch
    other_passes = ""  # what runs blocks beside the one pass that stages are cut from

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: JointIds,
        alignment_weight: float = 1.5,
        decoding: bool = True,
    ):
        super().__init__()
        self.backbone = backbone
        self.alignment_weight = alignment_weight
        self.decoding = decoding
        self.modalities = 1 + len(vocabulary.media)
        named = (f"decoding.{name}" for name in (TEXT, *vocabulary.media))
        self.part_names = ("alignment", "hit", *named)
        self.matmul = ops.MatMul(transpose_b=True)
        self.rows, self.narrow = operators.look_up(), operators.narrow()
        data = device_matrix().data
        self.rank, self.ranks = data.index, data.size
        self.gather = operators.collective(operators.GatherRows, data)
        self.sum = operators.collective(operators.SumOutputs, data)
        self.cross_entropy = operators.cross_entropy()
        self.modality_of_V = ms.Tensor(modality_of(vocabulary))

    def construct(
        self,
        ids,
        source,
        coords,
        segment,
        span,
        pool,
        positions,
        targets,
        weights,
        ranges,
        pair_group,
        pair_caption,
        *patches,
    ):
        hidden_ND = self.backbone(ids, source, coords, segment, span, *patches)
        return self.loss(
            hidden_ND, pool, positions, targets, weights, ranges, pair_group, pair_caption
        )

    def loss(self, hidden_ND, pool, positions, targets, weights, ranges, pair_group, pair_caption):
        """The same, of what the backbone made of a batch."""
        predicted = self.predict(hidden_ND, pool, positions, pair_group)
        return self.compare(*predicted, targets, weights, ranges, pair_group, pair_caption)

    def predict(self, hidden_ND, pool, positions, pair_group):
        """Embeddings (2 E, C) of the pairs' sides, in turn, and logits (M, V) of what is to be
        decoded; () of what is left out."""
        embeddings_FC = logits_MV = ()
        if self.alignment_weight > 0:
            embeddings_FC = self.backbone.embed(hidden_ND, pool, 2 * pair_group.shape[0])
        if self.decoding:
            logits_MV = self.logits(hidden_ND, positions)
        return embeddings_FC, logits_MV

    def compare(self, embeddings_FC, logits_MV, targets, weights, ranges, pair_group, pair_caption):
        """(loss, parts) of what was predicted."""
        loss = ops.zeros((), ms.float32)
        parts = []
        if self.alignment_weight > 0:
            E, C = pair_group.shape[0], embeddings_FC.shape[1]
            sides = embeddings_FC.reshape((E, -1))
            left_EC, right_EC = self.narrow(sides, 1, 0, C), self.narrow(sides, 1, C, C)
            alignment, hit = self.contrast(left_EC, right_EC, pair_group, pair_caption)
            loss = loss + self.alignment_weight * alignment
            parts += [alignment, hit]
        else:
            parts += [ops.zeros((), ms.float32), ops.zeros((), ms.float32)]
        if self.decoding:
            losses_M = self.cross_entropy(logits_MV, targets, ranges)
            loss = loss + (losses_M * weights).sum()
            parts += self.by_modality(losses_M, targets, weights)
        else:
            parts += [ops.zeros((), ms.float32)] * self.modalities
        row = ()
        for part in parts:
            row += (part.reshape((1,)),)
        return loss, ops.concat(row)

    def logits(self, hidden_ND, positions):
        """Of what is to be decoded, (M, V)."""
        return self.backbone.decode(self.rows(hidden_ND, positions))

    def contrast(self, left_EC, right_EC, group_E, caption_E):
        """Symmetric InfoNCE (CLIP 2103.00020, fig. 3; VALOR eq. 2) within each group.

        A pair's negatives are the other pairs of its group whose caption differs, on all ranks of
        the data axis: A of them, of which E are this rank's. Returns the mean over pairs, and the
        share of pairs whose left side ranks its own right side first; between ranks each returns
        its part of these, so that the ranks' mean is the whole.
        """
        E = group_E.shape[0]
        A = E * self.ranks
        own_E = ops.arange(E).astype(ms.int32) + self.rank * E
        itself_EA = (own_E.reshape((E, 1)) == ops.arange(A).astype(ms.int32)).astype(ms.float32)
        bias_EA = self.negative_bias(group_E, caption_E, itself_EA)
        scale = ops.exp(ops.clamp(self.backbone.log_scale, None, LARGEST_LOG_SCALE))
        forth_EA = self.matmul(left_EC, self.gather(right_EC)) * scale + bias_EA
        back_EA = self.matmul(right_EC, self.gather(left_EC)) * scale + bias_EA
        all_E2 = ops.broadcast_to(ops.arange(0, 2 * A, A).astype(ms.int32), (E, 2))
        forth_E = self.cross_entropy(forth_EA, own_E, all_E2)
        back_E = self.cross_entropy(back_EA, own_E, all_E2)
        used_E = (group_E >= 0).astype(ms.float32)
        share = ops.clamp(self.sum(used_E.sum().reshape((1,))), 1.0).reshape(()) / self.ranks
        ranked_EA = ops.stop_gradient(forth_EA)
        own_score_E = (ranked_EA * itself_EA).sum(1)
        hits = ((own_score_E >= ops.amax(ranked_EA, 1)).astype(ms.float32) * used_E).sum()
        return (0.5 * (forth_E + back_E) * used_E).sum() / share, hits / share

    def negative_bias(self, group_E, caption_E, itself_EA):
        """(E, A): 0 for a pair itself and its negatives, MASKED for pairs that do not count."""
        E = group_E.shape[0]
        # between ranks as floats, which are exact to 2^24 and sent by every kind of device
        groups_E, captions_E = group_E.astype(ms.float32), caption_E.astype(ms.float32)
        same_group = groups_E.reshape((E, 1)) == self.gather(groups_E).reshape((1, -1))
        same_caption = captions_E.reshape((E, 1)) == self.gather(captions_E).reshape((1, -1))
        negative_EA = ops.logical_and(same_group, ops.logical_not(same_caption))
        return (1.0 - itself_EA) * (1.0 - negative_EA.astype(ms.float32)) * MASKED

    def by_modality(self, losses_M, targets_M, weights_M):
        """Mean loss of each modality's targets, unweighted; for the log only."""
        losses_M = ops.stop_gradient(losses_M)
        kind_M = self.rows(self.modality_of_V.reshape((-1, 1)), targets_M).reshape((-1,))
        means = []
        for index in range(self.modalities):
            used_M = ops.logical_and(kind_M == index, weights_M > 0).astype(ms.float32)
            means.append((losses_M * used_M).sum() / ops.clamp(used_M.sum(), 1.0))
        return means
