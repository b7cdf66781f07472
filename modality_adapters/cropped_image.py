"""Images as CLIP reads them: the shorter side resized to the grid's, then the middle cut out."""

import numpy as np

from modality_adapters.image import ImageAdapter
from modality_adapters.resampling import resize


class CroppedImageAdapter(ImageAdapter):
    """As `ImageAdapter`, but that what lies beside the middle of an image is not seen.

    The pixels are those of `transformers`' processor of CLIP.

    Args:
        geometry: grid (1, Y, Y, 3).
    """

    form = "crop"

    def __post_init__(self):
        super().__post_init__()
        _, height, width, _ = self.geometry.shape
        if height != width:
            raise ValueError(f"image: the form 'crop' is of a square, not of {height} x {width}")

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        (h, w), size = pixels.shape[:2], self.geometry.shape[1]
        whole = size * h // min(h, w), size * w // min(h, w)
        start = (whole[0] - size) // 2, (whole[1] - size) // 2
        return resize(pixels, whole, start, (size, size))


ADAPTER = CroppedImageAdapter
