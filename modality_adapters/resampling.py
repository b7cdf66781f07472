"""Pixels resized as published vision encoders had them resized, by Pillow's bicubic filter."""

import cv2
import numpy as np
from scipy.sparse import csr_array

SHARPNESS = -0.5  # a of Keys' cubic (1981)
MOST_FLOATS = 1 << 24  # of pixels that are in memory as such at a time
LONGEST = (
    1 << 16
)  # side that the filter is made for; longer ones, as of no JPEG, are averaged first


def resize(
    pixels: np.ndarray,
    size: tuple[int, int],
    start: tuple[int, int] = (0, 0),
    kept: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 (h, w, 3) resized, and of that a part; only the part is computed.

    Where it shrinks, the filter is as much wider, so that no pixel is left out. Rows come first, as
    in the Pillow of the encoders' time; later ones choose.

    Args:
        size: height and width of the whole.
        start, kept: row and column at which the part begins, its height and width; None: all.
    """
    height, width = (min(side, LONGEST) for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    down, across = (
        _filter(*axis) for axis in zip((height, width), size, start, kept or size, strict=True)
    )
    narrow = np.empty((height, across.shape[0], 3), np.uint8)
    rows = max(1, MOST_FLOATS // (3 * width))
    for first in range(0, height, rows):
        part = slice(first, first + rows)
        narrow[part] = _apply(across, pixels[part].transpose(1, 0, 2)).transpose(1, 0, 2)
    return _apply(down, narrow)


def _apply(taps: csr_array, lines: np.ndarray) -> np.ndarray:
    """Lines (n, m, 3) -> (outputs, m, 3), rounded to uint8."""
    made = taps @ lines.reshape(len(lines), -1).astype(np.float32)
    rounded = np.floor(made + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return rounded.reshape(-1, *lines.shape[1:])


def _filter(inputs: int, outputs: int, start: int, kept: int) -> csr_array:
    """Weights (kept, inputs), each row of sum 1."""
    step = inputs / outputs
    wide = max(step, 1.0)
    middle = (np.arange(start, start + kept) + 0.5) * step
    first = np.maximum((middle - 2 * wide + 0.5).astype(int), 0)
    last = np.minimum((middle + 2 * wide + 0.5).astype(int), inputs)
    row = np.repeat(np.arange(kept), last - first)
    column = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
    weight = _cubic((column + 0.5 - middle[row]) / wide)
    weight /= np.bincount(row, weight)[row]
    return csr_array((weight.astype(np.float32), (row, column)), shape=(kept, inputs))


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
