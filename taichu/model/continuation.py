"""Rows continued token by token: each block keeps the keys and values of what it has read.

A condition is read once for all that is made from it; a step then costs one token a row. Names of
dimensions: C conditions of L places, R = C * (continuations of each) rows, condition by condition,
n tokens to be made, H heads, K head size.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from ascend.operators.attention import by_head
from ascend.operators.masked import MASKED
from taichu.data.packing import PackedBatch
from taichu.model.backbone import Backbone
from taichu.model.prefixed_attention import put_before


class Continuation(nn.Cell):
    """The backbone as a reader of conditions and a maker of next tokens; both are pure functions.

    Args:
        backbone: whose parameters it uses.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.values = ops.BatchMatMul()
        self.narrow = operators.narrow()
        self.type = backbone.matmul.type

    def read(self, ids_CL, source_CL, coords_CL3, segment_CL, span_CL, *patches_NP):
        """Keys and values (C, H, L, K) of each block, of rows that hold one segment each; of a
        prefix's P places before them too, (C, H, P + L, K)."""
        backbone, (C, L) = self.backbone, ids_CL.shape
        x_ND, branch_ND = backbone.read_tokens(ids_CL, source_CL, *patches_NP)
        cos_NK, sin_NK = backbone.turn(coords_CL3)
        kept, prefixes = (), backbone.prefixes()
        for i in range(len(backbone.blocks)):
            block, attention, prefix = backbone.blocks[i], backbone.blocks[i].attention, prefixes[i]
            x_ND, y_ND = block.attention_norm(x_ND, branch_ND)
            q, k, v = attention.project(y_ND, cos_NK, sin_NK)
            keys, values = by_head(k, C, L, attention.heads), by_head(v, C, L, attention.heads)
            if prefix:
                keys, values = put_before(prefix[0], keys), put_before(prefix[1], values)
                seen_NHK = attention.prefixed(q, k, v, segment_CL, span_CL, *prefix)
            else:
                seen_NHK = attention.attention(q, k, v, segment_CL, span_CL)
            kept += (keys, values)
            x_ND, branch_ND = block.feed(x_ND, attention.join_heads(seen_NHK), segment_CL)
        return kept

    def step(self, ids_R, coords_R3, made, segment_CL, *kept):
        """Logits (R, V) of the token after these, and the keys and values with these written.

        Args:
            ids_R, coords_R3: the newest token of each row, and its (t, y, x).
            made: (1,) int32, how many tokens the rows have made before it.
            segment_CL: 0 where a condition's row is padding.
            kept: what `read` returned; then for each block keys and values (R, H, n, K) of what
                the rows have made, zeros at first.
        """
        backbone = self.backbone
        n = kept[-1].shape[2]
        numbers_n = ops.arange(n).astype(ms.int32)
        here = (numbers_n == made).astype(self.type).reshape((n, 1))
        later = (numbers_n > made).astype(ms.float32) * MASKED
        padding_CL = (segment_CL == 0).astype(ms.float32) * MASKED
        if backbone.prefix is not None:
            bias_P = backbone.prefix.bias()
            bias_CP = ops.broadcast_to(bias_P, (segment_CL.shape[0], bias_P.shape[0]))
            padding_CL = ops.concat((bias_CP, padding_CL), 1)
        x_RD = backbone.look_up(ids_R).astype(self.type)
        branch_RD = ops.zeros_like(x_RD)
        cos_RK, sin_RK = backbone.turn(coords_R3)
        written, first = (), 2 * len(backbone.blocks)
        for i in range(len(backbone.blocks)):
            block, attention = backbone.blocks[i], backbone.blocks[i].attention
            x_RD, y_RD = block.attention_norm(x_RD, branch_RD)
            q, k, v = attention.project(y_RD, cos_RK, sin_RK)
            R, H, K = q.shape
            own_keys = kept[first + 2 * i] * (1.0 - here) + by_head(k, R, 1, H) * here
            own_values = kept[first + 2 * i + 1] * (1.0 - here) + by_head(v, R, 1, H) * here
            written += (own_keys, own_values)
            seen_RHK = self.attend(
                q, kept[2 * i], kept[2 * i + 1], padding_CL, own_keys, own_values, later
            )
            x_RD, branch_RD = block.feed(x_RD, attention.join_heads(seen_RHK))
        logits_RV = backbone.decode(backbone.normalise(x_RD, branch_RD)).astype(ms.float32)
        return (logits_RV, *written)

    def attend(self, q_RHK, k_CHLK, v_CHLK, padding_CL, k_RHnK, v_RHnK, later_n):
        """softmax(q k^T / sqrt(K)) v over the condition's tokens and the row's own; (R, H, K). The
        softmax is in float32.

        The rows of a condition are its queries side by side, so its keys are kept once.
        """
        (R, H, K), (C, _, L, _), n = q_RHK.shape, k_CHLK.shape, k_RHnK.shape[2]
        q_RHK = q_RHK * K**-0.5
        q_CHrK = ops.transpose(q_RHK.reshape((C, R // C, H, K)), (0, 2, 1, 3))
        read = self.scores(q_CHrK, k_CHLK).astype(ms.float32) + padding_CL.reshape((C, 1, 1, L))
        read_RHL = ops.transpose(read, (0, 2, 1, 3)).reshape((R, H, L))
        own_RHn = self.scores(q_RHK.reshape((R, H, 1, K)), k_RHnK).reshape((R, H, n))
        scores = ops.concat((read_RHL, own_RHn.astype(ms.float32) + later_n), -1)
        p = ops.softmax(scores, -1).astype(self.type)
        read_RHL, own_RHn = self.narrow(p, 2, 0, L), self.narrow(p, 2, L, n)
        p_CHrL = ops.transpose(read_RHL.reshape((C, R // C, H, L)), (0, 2, 1, 3))
        seen_RHK = ops.transpose(self.values(p_CHrL, v_CHLK), (0, 2, 1, 3)).reshape((R, H, K))
        own_RHK = self.values(own_RHn.reshape((R, H, 1, n)), v_RHnK).reshape((R, H, K))
        return seen_RHK + own_RHK


def continue_rows(read, step, batch: PackedBatch, rows: int, tokens: int):
    """What `taichu.inference.unified_model.UnifiedModel.start_reading` gives, by two graphs.

    Args:
        read, step: of the methods of `Continuation`.
        batch, rows, tokens: as there.
    """
    planes = [ms.Tensor(plane) for plane in batch.planes]
    segment, kept = planes[3], read(*planes, *map(ms.Tensor, batch.patches))
    _, heads, _, size = kept[0].shape
    blank = ms.Tensor(np.zeros((rows, heads, tokens, size), np.float32)).astype(kept[0].dtype)
    written = (blank,) * len(kept)

    def next_logits(ids: np.ndarray, coords: np.ndarray, made: int) -> np.ndarray:
        nonlocal written
        newest = map(ms.Tensor, (ids, coords, np.array([made], np.int32)))
        logits, *written = step(*newest, segment, *kept, *written)
        return logits.asnumpy()

    return next_logits
