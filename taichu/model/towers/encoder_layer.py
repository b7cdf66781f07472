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
    """Attention within each grid (Vaswani et al., 1706.03762); x (N, W)."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        W, self.heads = config.width, config.heads
        self.query, self.value = Linear(W, W, bias=True), Linear(W, W, bias=True)
        # Whisper's adds the same to all scores of a query, so it has none
        self.key = Linear(W, W, bias=config.kind != "whisper")
        self.output = Linear(W, W, bias=True)
        self.attention = operators.attention()

    def construct(self, x_NW, tokens: int):
        N, W = x_NW.shape
        shape = (N, self.heads, W // self.heads)
        parts = self.query(x_NW), self.key(x_NW), self.value(x_NW)
        grid_nL = ops.ones((N // tokens, tokens), ms.int32)  # one segment, and one span
        q_NHK, k_NHK, v_NHK = (parts[0].reshape(shape), *[p.reshape(shape) for p in parts[1:]])
        return self.output(self.attention(q_NHK, k_NHK, v_NHK, grid_nL, grid_nL).reshape((N, W)))


class EncoderLayer(nn.Cell):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); x (N, W)."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        W = config.width
        self.attention_norm = LayerNorm(W, config.norm_epsilon)
        self.attention = TowerAttention(config)
        self.feed_forward_norm = LayerNorm(W, config.norm_epsilon)
        self.up = Linear(W, config.hidden, bias=True)
        self.activation = ACTIVATIONS[config.activation]()
        self.down = Linear(config.hidden, W, bias=True)

    def construct(self, x_NW, tokens: int):
        x_NW = x_NW + self.attention(self.attention_norm(x_NW), tokens)
        return x_NW + self.down(self.activation(self.up(self.feed_forward_norm(x_NW))))


class Encoder(nn.Cell):
    """A tower's layers, and its last norm where it has one; x (N, W), of grids of L tokens."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layers = nn.CellList([EncoderLayer(config) for _ in range(config.depth)])
        self.norm = LayerNorm(config.width, config.norm_epsilon) if config.last_norm else None

    def construct(self, x_NW, tokens: int):
        for layer in self.layers:
            x_NW = layer(x_NW, tokens)
        return x_NW if self.norm is None else self.norm(x_NW)
