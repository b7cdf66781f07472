"""Scaled dot-product attention over packed rows (Vaswani et al., 1706.03762, eq. 1).

A token sees the earlier tokens of its own segment, and all tokens of its own span.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.form import choose_form, kernel
from ascend.operators.masked import MASKED
from ascend.precision import compute_type, has_bfloat16


class PlainAttention(nn.Cell):
    """softmax(q k^T / sqrt(K) + bias) v over dense rows, the softmax in float32.

    Inputs: q (N, H, K); k, v (N, G, K) of one type, with N = B * L and G dividing H (grouped-query
    attention, 2305.13245); segment and span (B, L) int32, where 0 is padding and no span.
    Output: (N, H, K) of that type; rows of padding hold no meaning.
    """

    def construct(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
        B, L = segment_BL.shape
        H, K = q_NHK.shape[1], q_NHK.shape[2]
        q_BHLK = by_head(q_NHK, B, L, H)
        k_BHLK, v_BHLK = by_head(k_NGK, B, L, H), by_head(v_NGK, B, L, H)
        scores = ops.BatchMatMul(transpose_b=True)(q_BHLK * K**-0.5, k_BHLK)
        hidden = ops.logical_not(seen_pairs(segment_BL, span_BL)).astype(ms.float32)
        p = ops.softmax(scores.astype(ms.float32) + hidden * MASKED, -1).astype(v_NGK.dtype)
        return ops.transpose(ops.BatchMatMul()(p, v_BHLK), (0, 2, 1, 3)).reshape((B * L, H, K))


class FlashAttention(nn.Cell):
    """The same function by aclnn's FlashAttentionScore (Dao, 2307.08691), of half floats alone.

    The mask is one byte a pair. Its form for rows of variable length (TND) takes no mask but the
    lower triangle, so no spans.
    """

    def construct(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
        (B, L), (H, K), G = segment_BL.shape, q_NHK.shape[1:], k_NGK.shape[1]
        out_BLHK = ops.flash_attention_score(
            q_NHK.reshape((B, L, H, K)),
            k_NGK.reshape((B, L, G, K)),
            v_NGK.reshape((B, L, G, K)),
            H,
            attn_mask=ops.logical_not(seen_pairs(segment_BL, span_BL)),
            scalar_value=K**-0.5,
            input_layout="BSND",
            sparse_mode=1,
        )
        return out_BLHK.reshape((B * L, H, K))


class CompiledAttention(nn.Cell):
    """The same function; computes only pairs of tokens of one segment; padding gives zeros."""

    def __init__(self):
        super().__init__()
        self.core = _CompiledAttentionCore()

    def construct(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
        out_NHK, _ = self.core(q_NHK, k_NGK, v_NGK, segment_BL, span_BL)
        return out_NHK


class _CompiledAttentionCore(nn.Cell):
    """Returns the log-sum-exp of the scores too, from which the gradient rebuilds the softmax."""

    def __init__(self):
        super().__init__()
        self.forward = kernel(
            "attention",
            lambda q, k, v, segment, span: (q, q[:2]),
            lambda q, k, v, segment, span: (q, q),
        )
        self.backward = kernel(
            "attention_gradient",
            lambda q, k, v, segment, span, o, log_sum, do: (q, k, v),
            lambda q, k, v, segment, span, o, log_sum, do: (q, k, v),
        )

    def construct(self, q, k, v, segment, span):
        return self.forward(q, k, v, segment, span)

    def bprop(self, q, k, v, segment, span, out, dout):
        dq, dk, dv = self.backward(q, k, v, segment, span, out[0], out[1], dout[0])
        return dq, dk, dv, ops.zeros_like(segment), ops.zeros_like(span)


def by_head(x_NGK, B: int, L: int, heads: int):
    """(B * L, G, K) -> (B, heads, L, K); each of the G heads serves heads / G in a row."""
    G, K = x_NGK.shape[1], x_NGK.shape[2]
    x_BGLK = ops.transpose(x_NGK.reshape((B, L, G, K)), (0, 2, 1, 3))
    if G == heads:
        return x_BGLK
    wide = ops.broadcast_to(x_BGLK.reshape((B, G, 1, L, K)), (B, G, heads // G, L, K))
    return wide.reshape((B, heads, L, K))


def seen_pairs(segment_BL, span_BL):
    """(B, 1, L, L) bool: which tokens (last axis) each token sees; padding sees padding."""
    B, L = segment_BL.shape
    place_L = ops.arange(L)
    earlier = place_L.reshape((1, 1, L)) <= place_L.reshape((1, L, 1))
    same_segment = segment_BL.reshape((B, L, 1)) == segment_BL.reshape((B, 1, L))
    same_span = ops.logical_and(
        span_BL.reshape((B, L, 1)) == span_BL.reshape((B, 1, L)), span_BL.reshape((B, L, 1)) > 0
    )
    seen = ops.logical_and(same_segment, ops.logical_or(earlier, same_span))
    return seen.reshape((B, 1, L, L))


def attention(form: str | None = None) -> nn.Cell:
    """The attention Cell for the current device; see `PlainAttention` for its inputs."""
    # its kernel is that of the chips that have bfloat16, too
    flash = has_bfloat16() and compute_type() != ms.float32
    return choose_form(
        form,
        plain=PlainAttention,
        compiled=CompiledAttention,
        ascend=FlashAttention if flash else PlainAttention,
    )
