"""Images: png, jpg, webp, bmp and tiff <-> RGB grids (1, Y, X, 3)."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from modality_adapters.adapter import GridAdapter
from modality_adapters.errors import MediaError
from modality_adapters.files import decoding
from modality_adapters.frames import fit, to_grid, to_pixels, vary
from modality_adapters.image_header import ImageHeader, read_encoded

ENCODING = {  # the best quality that a kind of file has; webp above 100 is lossless
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
}


@dataclass(frozen=True)
class ImageAdapter(GridAdapter):
    """Reads an image as RGB, resized with its aspect kept and centred on black.

    Transparent pixels are laid on black, 16-bit ones are brought to 8 bits, EXIF orientation is
    followed (by OpenCV, for images without transparency); of several pages the first is read.

    Args:
        geometry: grid (1, Y, X, 3).
        max_pixels: images of more pixels are refused by their header, before decoding.
    """

    name = "image"
    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
    channels = 3
    flat_axes = (0,)

    max_pixels: int = 64_000_000

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> (Y, X, 3)."""
        _, height, width, _ = self.geometry.shape
        return fit(pixels, height, width)

    def _read(self, path: Path) -> np.ndarray:
        header, data = read_encoded(path, self.max_pixels)
        return to_grid(self.frame(_decode(path, data, header)))[None]

    def _write(self, grid: np.ndarray, path: Path) -> None:
        suffix = path.suffix.lower()
        bgr = to_pixels(grid[0, :, :, ::-1])
        written, data = cv2.imencode(suffix, bgr, ENCODING.get(suffix, []))
        if not written:
            raise MediaError(path, "cannot be encoded")
        path.write_bytes(data.tobytes())

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """As `vary` does, and add light noise."""
        return vary(grid, random, strength, noise=0.04)


def _decode(path: Path, data: np.ndarray, header: ImageHeader) -> np.ndarray:
    """RGB pixels uint8 (h, w, 3)."""
    # Only IMREAD_UNCHANGED keeps transparency, and only without it OpenCV follows EXIF.
    kept = cv2.IMREAD_UNCHANGED if header.transparent else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    with decoding(path):
        pixels = cv2.imdecode(data, kept)
        if pixels is None:  # such as grey of floating point, which it does not make colour
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MediaError(path, "cannot be decoded: damaged, truncated or of an unknown kind")
    pixels = _as_bytes(path, pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.uint16)
        colours = pixels[:, :, 2::-1].astype(np.uint16)
        return ((colours * alpha + 127) // 255).astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _as_bytes(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Pixels of any depth as uint8; floating-point ones are taken to be in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise MediaError(path, "has pixels that are not finite numbers")
        return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    raise MediaError(path, f"has pixels of an unsupported kind ({pixels.dtype})")


ADAPTER = ImageAdapter
