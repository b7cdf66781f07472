"""The sound tower: Whisper's encoder (Radford et al., 2212.04356).

Names of dimensions: n grids of T patches, P patch size, F mel frames, C bands or channels, W width.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.config import TowerConfig
from taichu.model.block import Linear
from taichu.model.towers.activation import Gelu
from taichu.model.towers.encoder_layer import Encoder


class WhisperTower(nn.Cell):
    """Two convolutions over a grid's mel frames, the second of stride 2, and a transformer; what
    belongs to one patch is averaged.

    A patch is of 2 frames for each output of the encoder that its token is the mean of.

    Args:
        config: sizes. tokens: T. patch_size: P, frames times bands.

    Input: (n * T, P). Output: (n * T, W).
    """

    def __init__(self, config: TowerConfig, tokens: int, patch_size: int):
        super().__init__()
        W, self.bands = config.width, config.channels
        self.pooled = patch_size // self.bands // 2
        self.length = tokens * self.pooled
        self.convolution_1 = Linear(3 * self.bands, W, bias=True)
        self.convolution_2 = Linear(3 * W, W, bias=True)
        self.place = ms.Parameter(np.zeros((self.length, W), np.float32))
        self.encoder, self.gelu, self.narrow = Encoder(config), Gelu(), operators.narrow()

    def construct(self, patches_NP):
        L, W = self.length, self.convolution_1.weight.shape[0]
        x_nFC = patches_NP.reshape((-1, 2 * L, self.bands))
        around = ops.concat((self.before(x_nFC), x_nFC, self.after(x_nFC)), 2)
        x_NW = self.gelu(self.convolution_1(around.reshape((-1, 3 * self.bands))))
        # of frames 2 i - 1, 2 i and 2 i + 1: the second of the pair before, and the pair itself
        pairs = x_NW.reshape((-1, L, 2 * W))
        around = ops.concat((self.before(self.narrow(pairs, 2, W, W)), pairs), 2)
        x_NW = self.gelu(self.convolution_2(around.reshape((-1, 3 * W))))
        x_NW = (x_NW.reshape((-1, L, W)) + self.place.astype(x_NW.dtype)).reshape((-1, W))
        x_NW = self.encoder(x_NW, L)
        if self.pooled == 1:
            return x_NW
        return ops.sum(x_NW.reshape((-1, self.pooled, W)), 1) * (1.0 / self.pooled)

    def before(self, x_nFC):
        """The frame before each; zeros before the first."""
        kept = self.narrow(x_nFC, 1, 0, x_nFC.shape[1] - 1)
        return ops.concat((self.blank(x_nFC), kept), 1)

    def after(self, x_nFC):
        """The frame after each; zeros after the last."""
        kept = self.narrow(x_nFC, 1, 1, x_nFC.shape[1] - 1)
        return ops.concat((kept, self.blank(x_nFC)), 1)

    def blank(self, x_nFC):
        return ops.zeros((x_nFC.shape[0], 1, x_nFC.shape[2]), x_nFC.dtype)
