"""A tower and its projector in the place of a modality's linear map."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend.device_matrix import one_rank
from taichu.config import TowerConfig
from taichu.model.towers.projector import Projector
from taichu.model.towers.vision import VisionTower
from taichu.model.towers.whisper import WhisperTower

TOWERS = {"clip": VisionTower, "siglip": VisionTower, "whisper": WhisperTower}


class TowerEmbedder(nn.Cell):
    """Patches through a tower and a projector. What a tower reads is normalised as it was in its
    own training; nothing is measured, and no place is added, as towers have places of their own.

    No gradient passes into a frozen tower. Each rank holds all of it.

    Args:
        config: of the tower. patch_size: P. tokens: T of the modality's grid. width: D.

    Input: (n, P), grid after grid in token order. Output: (n, D).

    Raises:
        ConfigError: the tower cannot read such patches.
    """

    def __init__(self, config: TowerConfig, patch_size: int, tokens: int, width: int):
        super().__init__()
        config.check_grid(tokens, patch_size)
        with one_rank():
            self.tower = TOWERS[config.kind](config, tokens, patch_size)
            self.projector = Projector(config, width)
        self.frozen = config.frozen
        if self.frozen:
            for parameter in self.tower.get_parameters():
                parameter.requires_grad = False
        repeated = patch_size // config.channels
        mean, deviation = (
            np.tile(np.broadcast_to(np.float32(value), config.channels), repeated)
            for value in (config.mean, config.deviation)
        )
        self.mean, self.deviation = ms.Tensor(mean), ms.Tensor(deviation)

    def construct(self, patches_NP):
        x_NW = self.tower((patches_NP - self.mean) / self.deviation)
        if self.frozen:
            x_NW = ops.stop_gradient(x_NW)
        return self.projector(x_NW)

    def of_scaled(self, patches_NP, scale):
        """The same; there is no scale."""
        return self.construct(patches_NP)


class OwnScale(nn.Cell):
    """Stands where other modalities have a `taichu.model.patch_embedder.PatchScale`: a tower reads
    what it was trained on, so nothing is to be measured."""

    measured = True
