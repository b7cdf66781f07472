"""Attention over packed rows with places that every token of every segment sees besides.

They are not tokens of a row: segments share rows, and what stands before each of them is the same,
so it is kept once. Names of dimensions as in `taichu.model.block`; P places.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.attention import by_head, seen_pairs
from ascend.operators.masked import MASKED


class PrefixedAttention(nn.Cell):
    """softmax(q [k_prefix; k]^T / sqrt(K) + bias) [v_prefix; v], the softmax in float32.

    Inputs: as of `ascend.operators.attention.PlainAttention`; then keys and values of the prefix
    (P, G, K) and what is added to its scores (P,). Output: (N, H, K).
    """

    def construct(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL, k_PGK, v_PGK, bias_P):
        (B, L), (_, H, K), P = segment_BL.shape, q_NHK.shape, k_PGK.shape[0]
        q_BHLK = by_head(q_NHK, B, L, H) * K**-0.5
        k_BHXK = put_before(k_PGK, by_head(k_NGK, B, L, H))
        v_BHXK = put_before(v_PGK, by_head(v_NGK, B, L, H))
        hidden = ops.logical_not(seen_pairs(segment_BL, span_BL)).astype(ms.float32)
        bias = ops.broadcast_to(bias_P.reshape((1, 1, 1, P)), (B, 1, L, P))
        bias = ops.concat((bias, hidden * MASKED), -1)
        scores = ops.BatchMatMul(transpose_b=True)(q_BHLK, k_BHXK).astype(ms.float32)
        p = ops.softmax(scores + bias, -1).astype(v_NGK.dtype)
        return ops.transpose(ops.BatchMatMul()(p, v_BHXK), (0, 2, 1, 3)).reshape((B * L, H, K))


def put_before(prefix_PGK, x_BHLK):
    """Keys or values (B, H, P + L, K): those of a prefix (P, G, K), then those of the rows."""
    B, H, _, K = x_BHLK.shape
    P = prefix_PGK.shape[0]
    prefix_1HPK = by_head(prefix_PGK.astype(x_BHLK.dtype), 1, P, H)
    return ops.concat((ops.broadcast_to(prefix_1HPK, (B, H, P, K)), x_BHLK), 2)
