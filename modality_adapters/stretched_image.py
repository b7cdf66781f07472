"""Images as SigLIP reads them: resized to the grid, whatever their aspect."""

from dataclasses import dataclass

import numpy as np

from modality_adapters.image import ImageAdapter
from modality_adapters.resampling import resize


@dataclass(frozen=True)
class StretchedImageAdapter(ImageAdapter):
    """As `ImageAdapter`, but that an image fills the grid.

    The pixels are those of `transformers`' processor of SigLIP.

    Args:
        geometry: grid (1, Y, X, 3).
        side: that both sides are resized to, where patches do not divide it; of that the grid is
            the top left, as it is what the encoder sees. Less than the grid's: the grid's.
    """

    form = "stretch"

    side: int = 1

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        kept = self.geometry.shape[1:3]
        whole = max(self.side, kept[0]), max(self.side, kept[1])
        return resize(pixels, whole, kept=kept)


ADAPTER = StretchedImageAdapter
