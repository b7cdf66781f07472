"""Patches into the blocks: their scale, and a linear map of each modality.

Names of dimensions: n patches of S grids, T tokens of a grid, P patch size, D width.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.common.initializer import Normal, initializer

from taichu.model.block import Linear


class PatchEmbedder(nn.Cell):
    """A linear map of one modality's patches, and a learned vector for each place of its grid.

    Rotary positions tell tokens how far apart they are, the places where they stand (ViT,
    2010.11929, eq. 1). Both start at unit size, as what a block adds does: of a patch that starts
    at a tenth of it, the first blocks leave nothing to be seen.

    Args:
        patch_size: P. tokens: T of the modality's grid. width: D.

    Input: (n, P), grid after grid in token order. Output: (n, D).
    """

    def __init__(self, patch_size: int, tokens: int, width: int):
        super().__init__()
        self.linear = Linear(patch_size, width, bias=True)
        place = initializer(Normal(1.0), (tokens, width), ms.float32).init_data().asnumpy()
        self.place = ms.Parameter(place - place.mean(0, keepdims=True))

    def construct(self, patches_NP):
        return add_by_place(self.linear(patches_NP), self.place)

    def of_scaled(self, patches_NP, scale):
        """What `construct` gives for scale(patches), in one pass over the patches: the scale goes
        into the map's weight, and the mean, as it is one for each place, into the places."""
        weight_DP = self.linear.whole(self.linear.weight) / scale.deviation
        offset_TD = self.place + self.linear.bias - self.linear.matmul(scale.mean, weight_DP)
        return add_by_place(self.linear.matmul(patches_NP, weight_DP), offset_TD)


class PatchScale(nn.Cell):
    """Patches less their mean over the training data, in units of their deviation, and back.

    Most of a digit's grid is background. Left in, it is most of what a patch says, and the same in
    every grid. Kept with the parameters, not trained.

    Args:
        patch_size: P. tokens: T of the modality's grid.

    Input: (n, P), grid after grid in token order. Output: the same shape.
    """

    def __init__(self, patch_size: int, tokens: int):
        super().__init__()
        self.mean = ms.Parameter(np.zeros((tokens, patch_size), np.float32), requires_grad=False)
        self.deviation = ms.Parameter(np.ones(1, np.float32), requires_grad=False)

    @property
    def measured(self) -> bool:
        return bool(self.mean.asnumpy().any()) or float(self.deviation.asnumpy()[0]) != 1

    def measure(self, patches_STP: np.ndarray):
        """Take the mean of each place's patches, and one deviation of all values, from a sample."""
        values_STP = patches_STP.astype(np.float64)
        ops.assign(self.mean, ms.Tensor(values_STP.mean(0), ms.float32))
        ops.assign(self.deviation, ms.Tensor([max(values_STP.std(), 1e-6)], ms.float32))

    def construct(self, patches_NP):
        return add_by_place(patches_NP, -self.mean) / self.deviation

    def undo(self, patches_NP):
        return add_by_place(patches_NP * self.deviation, self.mean)


def add_by_place(x_NX, table_TX):
    """x (N, X), grid after grid, plus the row of a table of a grid's T places for each place; of
    the type of x."""
    (T, X), table_TX = table_TX.shape, table_TX.astype(x_NX.dtype)
    return (x_NX.reshape((-1, T, X)) + table_TX).reshape((-1, X))
