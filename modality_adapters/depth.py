"""Depth maps: 16-bit png and tiff in millimetres, floating-point tiff in metres <-> grids
(1, Y, X, 1)."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from modality_adapters.adapter import GridAdapter
from modality_adapters.errors import MediaError
from modality_adapters.files import decoding
from modality_adapters.frames import middle, vary
from modality_adapters.image_header import read_encoded

UNIT = 1000  # of 16-bit files in a metre, as in NYU Depth V2's and ScanNet's
WANTED = "a depth map has one channel, of 16 bits (millimetres) or of 32-bit floats (metres)"


@dataclass(frozen=True)
class DepthAdapter(GridAdapter):
    """Reads a depth map with its aspect kept and centred: 1 is `nearest` or nearer, -1 is
    `farthest` or farther, linear in the distance between.

    What is 0, negative or not finite was not measured, and reads as farthest, as does what lies
    beside the map. Smaller grids hold the mean of what was measured in each area, where that is
    half of it, so that nothing stands between an edge and what was not measured; larger ones repeat
    the nearest pixel.

    Args:
        geometry: grid (1, Y, X, 1).
        nearest, farthest: in metres, from 1 mm to 65.535 m, the most that a 16-bit file holds.
        max_pixels: maps of more pixels are refused by their header, before decoding.
    """

    name = "depth"
    suffixes = (".png", ".tif", ".tiff")
    channels = 1
    flat_axes = (0,)

    nearest: float = 0.5
    farthest: float = 10.0
    max_pixels: int = 64_000_000

    def __post_init__(self):
        super().__post_init__()
        if not 1 / UNIT <= self.nearest < self.farthest <= 65535 / UNIT:
            raise ValueError(
                f"depth: nearest={self.nearest} must be below farthest={self.farthest}, both from "
                f"{1 / UNIT} to {65535 / UNIT} m"
            )

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """As `vary` does, which brings things nearer or farther where it lights images, and add
        light noise."""
        return vary(grid, random, strength, noise=0.02)

    def _read(self, path: Path) -> np.ndarray:
        metres = _decode(path, self.max_pixels)
        measured = np.isfinite(metres) & (metres > 0)
        away = np.where(measured, metres, self.farthest).clip(self.nearest, self.farthest)
        closeness = (self.farthest - away) * (2 / (self.farthest - self.nearest))
        return self._fit(closeness, measured)[None, :, :, None] - 1

    def _fit(self, closeness: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Closeness (h, w), 0 where it was not measured, as (Y, X)."""
        _, height, width, _ = self.geometry.shape
        if closeness.shape == (height, width):
            return closeness
        rows, columns, shrinks = middle(*closeness.shape, height, width)
        size = columns.stop - columns.start, rows.stop - rows.start
        if shrinks:
            share = cv2.resize(measured.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            sums = cv2.resize(closeness, size, interpolation=cv2.INTER_AREA)
            # half of an area, but for what rounding makes of it
            resized = np.where(share > 0.4999, sums / np.maximum(share, 0.4999), 0)
        else:
            resized = cv2.resize(closeness, size, interpolation=cv2.INTER_NEAREST)
        framed = np.zeros((height, width), np.float32)
        framed[rows, columns] = resized
        return framed

    def _write(self, grid: np.ndarray, path: Path) -> None:
        away = self.farthest - (grid[0, :, :, 0] + 1) * ((self.farthest - self.nearest) / 2)
        written, data = cv2.imencode(path.suffix.lower(), np.rint(away * UNIT).astype(np.uint16))
        if not written:
            raise MediaError(path, "cannot be encoded")
        path.write_bytes(data.tobytes())


def _decode(path: Path, max_pixels: int) -> np.ndarray:
    """Metres float32 (h, w)."""
    header, data = read_encoded(path, max_pixels)
    if not header.mode.startswith(("I", "F")):
        raise MediaError(path, f"is a picture of 8 bits or of colours ({header.mode}); {WANTED}")
    with decoding(path):
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MediaError(path, "cannot be decoded: damaged, truncated or of an unknown kind")
    if pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
        raise MediaError(path, f"has pixels of another kind ({pixels.dtype}); {WANTED}")
    return pixels if pixels.dtype == np.float32 else pixels * np.float32(1 / UNIT)


ADAPTER = DepthAdapter
