"""The shared block: attention and a feed-forward layer over packed rows.

Names of dimensions: B rows, L tokens, N = B * L, D width, H heads, G key/value heads, K head size,
F hidden width; I inputs and O outputs of a linear map.
"""

import mindspore as ms
import numpy as np
from mindspore import nn

from ascend import operators
from ascend.device_matrix import Axis, device_matrix
from ascend.sharding import Part
from taichu.config import ModelConfig
from taichu.model.matrices import draw_matrix, whole, zeros
from taichu.model.mixture_of_experts import ExpertFeedForward
from taichu.model.prefixed_attention import PrefixedAttention


class Linear(nn.Cell):
    """y = x W^T (+ b), x (N, I), W (O, I); y is of the compute type.

    Weights start with variance ``gain``^2 / I, so that a normalised input keeps its size.

    Args:
        inputs, outputs: I and O, of the whole map.
        split: what of it the ranks of the tensor axis share out: "outputs", each making its own,
            "inputs", each adding its own to the sum, or None.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = False,
        gain: float = 1.0,
        split: str | None = None,
    ):
        super().__init__()
        deviation = gain * inputs**-0.5
        self.weight = draw_matrix((outputs, inputs), deviation, split, shared_out=True)
        self.bias = zeros(outputs, split) if bias else None
        self.matmul, self.whole = operators.Matmul(), whole(self.weight)
        axis = device_matrix().tensor if split == "inputs" else Axis("tensor")
        self.sum = operators.collective(operators.SumOutputs, axis)

    @property
    def linear(self) -> "Linear":
        """Itself; what tuning methods put in its place says it of the one that they hold."""
        return self

    def construct(self, x_NI):
        y_NO = self.sum(self.matmul(x_NI, self.whole(self.weight)))
        if self.bias is not None:
            y_NO = y_NO + self.bias.astype(y_NO.dtype)
        return y_NO


class AddRmsNorm(nn.Cell):
    """x + branch, and its RMS normalisation; inputs and both outputs (N, D)."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = ms.Parameter(np.ones(width, np.float32))
        self.norm = operators.add_rms_norm(epsilon)

    def construct(self, x_ND, branch_ND):
        return self.norm(x_ND, branch_ND, self.weight)


class NormedRotary(nn.Cell):
    """RMS normalisation of each head, then the rotary position; x (N, H, K)."""

    def __init__(self, head_size: int, epsilon: float):
        super().__init__()
        self.weight = ms.Parameter(np.ones(head_size, np.float32))
        self.rotary = operators.normed_rotary(epsilon)
        self.share = operators.collective(operators.SumGradients, device_matrix().tensor)

    def construct(self, x_NHK, cos_NK, sin_NK):
        return self.rotary(x_NHK, self.share(self.weight), cos_NK, sin_NK)


class Attention(nn.Cell):
    """Grouped-query attention (Ainslie et al., 2305.13245) with optional query/key norm.

    Ranks of the tensor axis share out the heads; ranks of the sequence axis hold a share of each
    row's tokens, and swap it for a share of the heads while tokens look at each other.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, H, G, K = config.width, config.heads, config.key_value_heads, config.head_size
        tensor, sequence = device_matrix().tensor, device_matrix().sequence
        for heads in (H, G):
            Part((heads,)).split(0, tensor, "heads").split(0, sequence, "heads")
        self.heads, self.groups, self.head_size = H // tensor.size, G // tensor.size, K
        self.query = Linear(D, H * K, config.bias, split="outputs")
        self.key = Linear(D, G * K, config.bias, split="outputs")
        self.value = Linear(D, G * K, config.bias, split="outputs")
        self.output = Linear(H * K, D, gain=(2 * config.depth) ** -0.5, split="inputs")
        self.share = operators.collective(operators.SumGradients, tensor)
        self.sequence = sequence.size
        self.to_heads = operators.collective(operators.Swap, sequence, 2, 1)
        self.to_tokens = operators.collective(operators.Swap, sequence, 1, 2)
        self.normed = config.query_key_norm
        if self.normed:
            self.query_norm = NormedRotary(K, config.norm_epsilon)
            self.key_norm = NormedRotary(K, config.norm_epsilon)
        else:
            self.rotary = operators.rotary()
        self.attention, self.prefixed = operators.attention(), PrefixedAttention()

    def construct(self, x_ND, cos_NK, sin_NK, segment_BL, span_BL, *prefix):
        q_NHK, k_NGK, v_NGK = self.project(x_ND, cos_NK, sin_NK)
        if self.sequence > 1:
            out_NHK = self.swapped(q_NHK, k_NGK, v_NGK, segment_BL, span_BL)
        # not in a method of its own: its gradient would keep 5 % more of a step's memory
        elif prefix:
            out_NHK = self.prefixed(q_NHK, k_NGK, v_NGK, segment_BL, span_BL, *prefix)
        else:
            out_NHK = self.attention(q_NHK, k_NGK, v_NGK, segment_BL, span_BL)
        return self.join_heads(out_NHK)

    def swapped(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
        """The attention of a share of the tokens, by all tokens of a share of the heads."""
        (B, L), K = segment_BL.shape, self.head_size
        every = ()
        for x_NXK in (q_NHK, k_NGK, v_NGK):
            x_BLXK = self.to_heads(x_NXK.reshape((B, L // self.sequence, -1, K)))
            every += (x_BLXK.reshape((B * L, -1, K)),)
        out_NHK = self.attention(*every, segment_BL, span_BL)
        return self.to_tokens(out_NHK.reshape((B, L, -1, K))).reshape((-1, self.heads, K))

    def join_heads(self, out_NHK):
        """What the heads found (N, H, K) -> (N, D)."""
        return self.output(out_NHK.reshape((-1, self.heads * self.head_size)))

    def project(self, x_ND, cos_NK, sin_NK):
        """Queries (N, H, K), keys and values (N, G, K); queries and keys turned by their place."""
        H, G, K = self.heads, self.groups, self.head_size
        x_ND = self.share(x_ND)
        q_NHK = self.query(x_ND).reshape((-1, H, K))
        k_NGK = self.key(x_ND).reshape((-1, G, K))
        v_NGK = self.value(x_ND).reshape((-1, G, K))
        if self.normed:
            q_NHK = self.query_norm(q_NHK, cos_NK, sin_NK)
            k_NGK = self.key_norm(k_NGK, cos_NK, sin_NK)
        else:
            q_NHK = self.rotary(q_NHK, cos_NK, sin_NK)
            k_NGK = self.rotary(k_NGK, cos_NK, sin_NK)
        return q_NHK, k_NGK, v_NGK


class FeedForward(nn.Cell):
    """SwiGLU layer (Shazeer, 2002.05202), of padding as of tokens: segments are not read."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, F = config.width, config.hidden
        self.gate, self.up = Linear(D, F, split="outputs"), Linear(D, F, split="outputs")
        self.down = Linear(F, D, gain=(2 * config.depth) ** -0.5, split="inputs")
        self.swiglu = operators.swiglu()
        self.share = operators.collective(operators.SumGradients, device_matrix().tensor)

    def construct(self, x_ND, segment_BL=None):
        x_ND = self.share(x_ND)
        return self.down(self.swiglu(self.gate(x_ND), self.up(x_ND)))


class Block(nn.Cell):
    """A pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    The sum and what is to be added to it next come and go apart (x, branch), since each norm adds
    them in its own pass; after the last block the last norm does.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = AddRmsNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = AddRmsNorm(config.width, config.norm_epsilon)
        self.feed_forward = (ExpertFeedForward if config.experts else FeedForward)(config)

    def construct(self, x_ND, branch_ND, cos_NK, sin_NK, segment_BL, span_BL, *prefix):
        x_ND, y_ND = self.attention_norm(x_ND, branch_ND)
        branch_ND = self.attention(y_ND, cos_NK, sin_NK, segment_BL, span_BL, *prefix)
        return self.feed(x_ND, branch_ND, segment_BL)

    def feed(self, x_ND, branch_ND, segment_BL=None):
        """The block's second half; without segments, where no place is padding."""
        x_ND, y_ND = self.feed_forward_norm(x_ND, branch_ND)
        return x_ND, self.feed_forward(y_ND, segment_BL)
