"""The geometry of a grid: its shape, how it is cut into patches, where each patch stands.

Every media modality is a grid of shape (T, Y, X, C) with values in [-1, 1]. A patch spans
`patch` = (pt, py, px) positions and all channels; patches are in row-major order of their index.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class GridGeometry:
    """Shape (T, Y, X, C) of a grid and (pt, py, px) of its patches.

    Raises ValueError when a number is not a positive integer or the patch does not divide the grid.
    """

    shape: tuple[int, int, int, int]
    patch: tuple[int, int, int]

    def __post_init__(self):
        for name, length in (("shape", 4), ("patch", 3)):
            values = tuple(getattr(self, name))
            if len(values) != length or not all(_is_positive_integer(value) for value in values):
                raise ValueError(f"{name} must be {length} positive integers, not {values}")
            object.__setattr__(self, name, tuple(int(value) for value in values))
        if any(size % step for size, step in zip(self.shape, self.patch, strict=False)):
            raise ValueError(f"patch {self.patch} does not divide the grid {self.shape[:3]}")

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many patches there are along t, y and x."""
        t, y, x = (size // step for size, step in zip(self.shape, self.patch, strict=False))
        return t, y, x

    @property
    def tokens(self) -> int:
        """How many patches a grid has."""
        t, y, x = self.counts
        return t * y * x

    @property
    def patch_size(self) -> int:
        """How many values a patch has."""
        pt, py, px = self.patch
        return pt * py * px * self.shape[3]

    def coordinates(self) -> np.ndarray:
        """Index (t, y, x) of each patch, int32 (tokens, 3)."""
        return np.indices(self.counts, dtype=np.int32).reshape(3, -1).T.copy()

    def patchify(self, grids: np.ndarray) -> np.ndarray:
        """Cut grids (..., T, Y, X, C) into patches, float32 (..., tokens, patch_size)."""
        grids = np.asarray(grids)
        if grids.shape[-4:] != self.shape:
            raise ValueError(f"grids of shape {grids.shape} do not end in {self.shape}")
        (t, y, x), (pt, py, px), channels = self.counts, self.patch, self.shape[3]
        blocks = widen(grids).reshape(-1, t, pt, y, py, x, px, channels)
        blocks = blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).astype(np.float32, order="C")
        return blocks.reshape(*grids.shape[:-4], self.tokens, self.patch_size)

    def unpatchify(self, patches: np.ndarray) -> np.ndarray:
        """Put patches (..., tokens, patch_size) together again, float32 (..., T, Y, X, C)."""
        patches = np.asarray(patches)
        if patches.shape[-2:] != (self.tokens, self.patch_size):
            raise ValueError(
                f"patches of shape {patches.shape} do not end in {(self.tokens, self.patch_size)}"
            )
        (t, y, x), (pt, py, px), channels = self.counts, self.patch, self.shape[3]
        blocks = patches.reshape(-1, t, y, x, pt, py, px, channels)
        blocks = blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7).astype(np.float32, order="C")
        return blocks.reshape(*patches.shape[:-2], *self.shape)


def widen(grid: np.ndarray) -> np.ndarray:
    """float16 as float32, exactly, an order of magnitude faster than NumPy; others as they are."""
    if grid.dtype != np.float16:
        return grid
    if not grid.size:  # which OpenCV does not take
        return np.empty(grid.shape, np.float32)
    halves = np.ascontiguousarray(grid).view(np.int16)  # as OpenCV keeps them
    return cv2.convertFp16(halves.reshape(1, -1)).reshape(grid.shape)


def _is_positive_integer(value) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0
