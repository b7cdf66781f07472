"""Codecs: a grid modality's patches -> discrete codes -> patches, without a codebook to learn.

An autoencoder of the backbone's own blocks around a finite scalar quantizer (FSQ, Mentzer et al.,
2309.15505): each of a token's few numbers is bounded and rounded to one of its levels; the code is
the mixed-radix number they spell. Names of dimensions: S samples, T tokens of a grid, P patch
size, W width, Q digits of a code.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from modality_adapters.grid import GridGeometry
from taichu.config import CodecConfig
from taichu.model.block import AddRmsNorm, Block, Linear
from taichu.model.patch_embedder import PatchEmbedder, PatchScale
from taichu.model.rotary_frequencies import rotary_frequencies


class Codec(nn.Cell):
    """One modality's codec; the same class for every grid modality.

    Args:
        config: levels, width (a multiple of 32) and depth.
        geometry: the modality's grid.
        samples: S, grids a call takes (static shape).
    """

    def __init__(self, config: CodecConfig, geometry: GridGeometry, samples: int = 16):
        super().__init__()
        W, P, T = config.width, geometry.patch_size, geometry.tokens
        blocks = config.blocks
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.scale = PatchScale(P, T)
        self.patch_in = PatchEmbedder(P, T, W)
        self.encoder = nn.CellList([Block(blocks) for _ in range(config.depth)])
        self.encoder_norm = AddRmsNorm(W, blocks.norm_epsilon)
        self.digits_in = Linear(W, len(config.levels), bias=True)
        self.digits_out = PatchEmbedder(len(config.levels), T, W)
        self.decoder = nn.CellList([Block(blocks) for _ in range(config.depth)])
        self.decoder_norm = AddRmsNorm(W, blocks.norm_epsilon)
        self.patch_out = Linear(W, P, bias=True)
        angle = np.tile(geometry.coordinates() @ rotary_frequencies(blocks), (samples, 1))
        self.cos, self.sin = (
            ms.Tensor(np.cos(angle), ms.float32),
            ms.Tensor(np.sin(angle), ms.float32),
        )
        # each grid is one segment and one span: all its tokens see each other
        self.segment = ms.Tensor(np.ones((samples, T)), ms.int32)
        self.shape, self.samples = (samples, T, P), samples

    def construct(self, patches_STP):
        """Patches (S, T, P) -> the same, rebuilt from their codes. Differentiable."""
        digits = self.quantizer(self._encode(patches_STP))
        return self._decode(digits)

    def encode(self, patches_STP):
        """Patches (S, T, P) -> codes (S, T) int32."""
        digits = self.quantizer(self._encode(patches_STP))
        return self.quantizer.codes(digits).reshape(self.shape[:2])

    def decode(self, codes_ST):
        """Codes (S, T) int32 -> patches (S, T, P)."""
        return self._decode(self.quantizer.digits(codes_ST.reshape((-1,))))

    def _encode(self, patches_STP):
        patches_NP = patches_STP.reshape((-1, self.shape[2]))
        x = self.patch_in.of_scaled(patches_NP, self.scale)
        digits = self.digits_in(self._transform(x, self.encoder, self.encoder_norm))
        return digits.astype(ms.float32)

    def _decode(self, digits_NQ):
        y = self._transform(self.digits_out(digits_NQ), self.decoder, self.decoder_norm)
        return self.scale.undo(self.patch_out(y).astype(ms.float32)).reshape(self.shape)

    def _transform(self, x_NW, blocks, norm):
        branch_NW = ops.zeros_like(x_NW)
        for block in blocks:
            x_NW, branch_NW = block(x_NW, branch_NW, self.cos, self.sin, self.segment, self.segment)
        _, out_NW = norm(x_NW, branch_NW)
        return out_NW


class FiniteScalarQuantizer(nn.Cell):
    """FSQ (2309.15505, section 3.1): bound, round, and let the gradient through the rounding.

    Input: (N, Q) unbounded. Output: (N, Q), each digit on its levels, scaled to [-1, 1].
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        levels_Q = np.array(levels, np.float32)
        half = (levels_Q - 1) * (1 + 1e-3) / 2
        offset = np.where(levels_Q % 2 == 0, 0.5, 0.0)
        self.half = ms.Tensor(half, ms.float32)
        self.offset = ms.Tensor(offset, ms.float32)
        self.shift = ms.Tensor(np.arctanh(offset / half), ms.float32)
        self.middle = ms.Tensor(levels_Q // 2, ms.float32)
        self.levels = ms.Tensor(levels_Q, ms.float32)
        self.basis = ms.Tensor(np.cumprod([1, *levels[:-1]]), ms.float32)
        self.count = math.prod(levels)

    def construct(self, x_NQ):
        # tanh by the sigmoid: MindSpore's CPU tanh is off by 1e-4
        bounded = (2.0 * ops.sigmoid(2.0 * (x_NQ + self.shift)) - 1.0) * self.half - self.offset
        rounded = bounded + ops.stop_gradient(ops.round(bounded) - bounded)
        return rounded / self.middle

    def codes(self, digits_NQ):
        """Digits in [-1, 1] -> codes (N,) int32 below the product of the levels."""
        steps = ops.round(digits_NQ * self.middle + self.middle)
        return (steps * self.basis).sum(-1).astype(ms.int32)

    def digits(self, codes_N):
        """Codes (N,) -> digits (N, Q) in [-1, 1]."""
        quotient = ops.floor((codes_N.reshape((-1, 1)).astype(ms.float32) + 0.5) / self.basis)
        steps = quotient - self.levels * ops.floor((quotient + 0.5) / self.levels)
        return (steps - self.middle) / self.middle


class CodecObjective(nn.Cell):
    """Mean squared error of the rebuilt patches; output (loss, parts) as `TrainingStep` wants."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.codec = codec

    def construct(self, patches_STP):
        error = (self.codec(patches_STP) - patches_STP).reshape((-1, patches_STP.shape[-1]))
        P = patches_STP.shape[-1]
        # in two steps: the sums of rows first, which a CPU makes several times faster so
        loss = ops.sum(ops.sum(error * error, -1) / P) / error.shape[0]
        return loss, loss.reshape((1,))


def run_in_batches(function, rows: np.ndarray, samples: int) -> np.ndarray:
    """Apply a compiled function of ``samples`` rows to any number of rows."""
    outputs = []
    for start in range(0, len(rows), samples):
        part = rows[start : start + samples]
        missing = samples - len(part)
        full = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part
        outputs.append(function(ms.Tensor(full)).asnumpy()[: len(part)])
    return np.concatenate(outputs)
