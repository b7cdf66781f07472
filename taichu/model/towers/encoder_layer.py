"""The layer that ViT and Whisper share, all of whose tokens see each other.

Names of dimensions: n grids of L tokens, N = n * L, W width, H heads, K head size.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend import operators
from taichu.config import TowerConfig
from taichu.model.block import Linear
from taichu.model.towers.activation import ACTIVATIONS
from taichu.model.towers.layer_norm import LayerNorm


class TowerAttention(nn.Cell):
    """Attention of all to all tokens of a segment (Vaswani et al., 1706.03762); x (N, W), segment
    (n, L) int32, where 0 is padding.

    Args:
        width: W. heads: H.
        key_bias: it adds the same to all scores of a query, so Whisper has none.
    """

    def __init__(self, width: int, heads: int, key_bias: bool = True):
        super().__init__()
        W, self.heads = width, heads
        self.query, self.value = Linear(W, W, bias=True), Linear(W, W, bias=True)
        self.key = Linear(W, W, bias=key_bias)
        self.output = Linear(W, W, bias=True)
        self.attention = operators.attention()

    def construct(self, x_NW, segment_nL):
        N, W = x_NW.shape
        shape = (N, self.heads, W // self.heads)
        q_NHK = self.query(x_NW).reshape(shape)
        k_NHK, v_NHK = self.key(x_NW).reshape(shape), self.value(x_NW).reshape(shape)
        seen_NHK = self.attention(q_NHK, k_NHK, v_NHK, segment_nL, segment_nL)
        return self.output(seen_NHK.reshape((N, W)))


class EncoderLayer(nn.Cell):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); x (N, W)."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        W = config.width
        self.attention_norm = LayerNorm(W, config.norm_epsilon)
        self.attention = TowerAttention(W, config.heads, key_bias=config.kind != "whisper")
        self.feed_forward_norm = LayerNorm(W, config.norm_epsilon)
        self.up = Linear(W, config.hidden, bias=True)
        self.activation = ACTIVATIONS[config.activation]()
        self.down = Linear(config.hidden, W, bias=True)

    def construct(self, x_NW, segment_nL):
        x_NW = x_NW + self.attention(self.attention_norm(x_NW), segment_nL)
        return x_NW + self.down(self.activation(self.up(self.feed_forward_norm(x_NW))))


class Encoder(nn.Cell):
    """A tower's layers, and its last norm where it has one; x (N, W), of grids of L tokens."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layers = nn.CellList([EncoderLayer(config) for _ in range(config.depth)])
        self.norm = LayerNorm(config.width, config.norm_epsilon) if config.last_norm else None

    def construct(self, x_NW, tokens: int):
        grids_nL = ops.ones((x_NW.shape[0] // tokens, tokens), ms.int32)  # one segment each
        for layer in self.layers:
            x_NW = layer(x_NW, grids_nL)
        return x_NW if self.norm is None else self.norm(x_NW)
