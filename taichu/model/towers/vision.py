"""The vision towers: the ViT of CLIP (Radford et al., 2103.00020) and of SigLIP (Zhai et al.,
2303.15343).

Names of dimensions: n grids of T patches, P patch size, W width.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.config import TowerConfig
from taichu.model.block import Linear
from taichu.model.towers.encoder_layer import Encoder
from taichu.model.towers.layer_norm import LayerNorm


class VisionTower(nn.Cell):
    """A vision transformer (2010.11929) of normalised patches, whose convolution over patches that
    do not overlap is a linear map of each.

    CLIP has a class token, which is left out of the output as LLaVA does (2304.08485, section 4.1),
    and a norm before its layers; SigLIP has a bias on the map.

    Args:
        config: sizes. tokens: T. patch_size: P, its channels last.

    Input: (n * T, P). Output: (n * T, W).
    """

    def __init__(self, config: TowerConfig, tokens: int, patch_size: int):
        super().__init__()
        W, clip = config.width, config.kind == "clip"
        self.patches = Linear(patch_size, W, bias=not clip)
        self.start = ms.Parameter(np.zeros(W, np.float32)) if clip else None
        self.tokens, self.length = tokens, tokens + clip
        self.place = ms.Parameter(np.zeros((self.length, W), np.float32))
        self.first_norm = LayerNorm(W, config.norm_epsilon) if clip else None
        self.encoder = Encoder(config)
        self.narrow = operators.narrow()

    def construct(self, patches_NP):
        x_NW = self.patches(patches_NP)
        W = x_NW.shape[1]
        x_nTW = x_NW.reshape((-1, self.tokens, W))
        if self.start is not None:
            start = self.start.astype(x_NW.dtype).reshape((1, 1, W))
            start = ops.broadcast_to(start, (x_nTW.shape[0], 1, W))
            x_nTW = ops.concat((start, x_nTW), 1)
        x_NW = (x_nTW + self.place.astype(x_NW.dtype)).reshape((-1, W))
        if self.first_norm is not None:
            x_NW = self.first_norm(x_NW)
        x_NW = self.encoder(x_NW, self.length)
        if self.start is None:
            return x_NW
        x_nTW = self.narrow(x_NW.reshape((-1, self.length, W)), 1, 1, self.tokens)
        return x_nTW.reshape((-1, W))
