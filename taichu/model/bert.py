"""BERT (Devlin et al., 1810.04805) as an encoder of sentences (Reimers and Gurevych, 1908.10084).

Names of dimensions: n sentences of L places, N = n * L, W width.
"""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.model.block import Linear
from taichu.model.towers.activation import Gelu
from taichu.model.towers.encoder_layer import TowerAttention
from taichu.model.towers.layer_norm import LayerNorm


@dataclass(frozen=True)
class BertConfig:
    """Sizes."""

    width: int
    depth: int
    heads: int
    hidden: int
    pieces: int
    positions: int
    kinds: int  # of sentences, of which the first is used
    norm_epsilon: float


class BertLayer(nn.Cell):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); x (N, W), segment (n, L)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        W = config.width
        self.attention = TowerAttention(W, config.heads)
        self.attention_norm = LayerNorm(W, config.norm_epsilon)
        self.up = Linear(W, config.hidden, bias=True)
        self.gelu = Gelu()
        self.down = Linear(config.hidden, W, bias=True)
        self.feed_forward_norm = LayerNorm(W, config.norm_epsilon)

    def construct(self, x_NW, segment_nL):
        x_NW = self.attention_norm(x_NW + self.attention(x_NW, segment_nL))
        return self.feed_forward_norm(x_NW + self.down(self.gelu(self.up(x_NW))))


class Bert(nn.Cell):
    """Sentences -> the mean of their tokens' last states, of unit length.

    Inputs: ids (n, L) int32; segment (n, L) int32, 1, and 0 for padding. Output: (n, W) float32.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        W = config.width
        self.pieces = ms.Parameter(np.zeros((config.pieces, W), np.float32))
        self.places = ms.Parameter(np.zeros((config.positions, W), np.float32))
        self.kinds = ms.Parameter(np.zeros((config.kinds, W), np.float32))
        self.norm = LayerNorm(W, config.norm_epsilon)
        self.layers = nn.CellList([BertLayer(config) for _ in range(config.depth)])
        self.rows, self.narrow = operators.look_up(), operators.narrow()

    def construct(self, ids_nL, segment_nL):
        (n, L), W = ids_nL.shape, self.pieces.shape[1]
        places_LW = self.narrow(self.places, 0, 0, L) + self.narrow(self.kinds, 0, 0, 1)
        x_nLW = self.rows(self.pieces, ids_nL.reshape((-1,))).reshape((n, L, W)) + places_LW
        x_NW = self.norm(x_nLW.reshape((-1, W)))
        for layer in self.layers:
            x_NW = layer(x_NW, segment_nL)
        heard_nL1 = (segment_nL > 0).astype(ms.float32).reshape((n, L, 1))
        sums_nW = ops.sum(x_NW.astype(ms.float32).reshape((n, L, W)) * heard_nL1, 1)
        return sums_nW * ops.pow(ops.sum(sums_nW * sums_nW, -1, True) + 1e-24, -0.5)
