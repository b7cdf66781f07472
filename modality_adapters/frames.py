"""Pixels <-> grid values: what images and video frames share, and OpenCV made quiet."""

import os

# The C libraries behind OpenCV print about damaged files, which MediaError reports. Both are
# defaults only: who sets these variables sees the libraries' words again.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

VALUE_OF_PIXEL = (np.arange(256) / 127.5 - 1).astype(np.float16)


def to_grid(pixels: np.ndarray) -> np.ndarray:
    """Grid values of uint8 pixels (any shape): float16, 0 -> -1 and 255 -> 1."""
    return VALUE_OF_PIXEL[pixels]


def to_pixels(values: np.ndarray) -> np.ndarray:
    """Nearest uint8 pixels of grid values in [-1, 1]; the exact inverse of `to_grid`."""
    return np.rint((np.asarray(values, np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def fit(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (height, width, 3), aspect kept, centred on black.

    Pixels of the right size are left as they are.
    """
    h, w = pixels.shape[:2]
    if (h, w) == (height, width):
        return pixels
    scale = min(height / h, width / w)
    inner_h, inner_w = (min(max(1, round(n * scale)), m) for n, m in ((h, height), (w, width)))
    # Averaging areas keeps thin strokes when shrinking; it would make blocks when enlarging.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (inner_w, inner_h), interpolation=method)
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    framed[top : top + inner_h, left : left + inner_w] = resized
    return framed


def vary(grid: np.ndarray, random: np.random.Generator, noise: float) -> np.ndarray:
    """Turn, scale and shift all frames of (T, Y, X, C) alike, a little; vary their contrast.

    By up to 10 degrees, 8 % and half a pixel: less than what a caption speaks of, so that "left"
    and "at the top" stay true; the three colours alike, so that "red" does. Black (-1) enters at
    the edges and stays black, so that a background is not mistaken for a colour; `noise` is the
    half width of uniform noise. Never flips.
    """
    draws = random.random(5).tolist()
    angle, zoom = 20 * draws[0] - 10, 0.92 + 0.16 * draws[1]
    light = 0.85 + 0.25 * draws[4]  # scale of brightness above black
    _, height, width, _ = grid.shape
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom)
    move[:, 2] += draws[2] - 0.5, draws[3] - 0.5
    varied = np.empty(grid.shape, np.float32)
    for source, target in zip(grid.astype(np.float32, copy=False), varied):
        cv2.warpAffine(source, move, (width, height), target, borderValue=(-1, -1, -1, -1))
    varied *= np.float32(light)
    varied += np.float32(light - 1)
    if noise:
        varied += (random.random(grid.shape, np.float32) - np.float32(0.5)) * np.float32(2 * noise)
    np.maximum(varied, -1, out=varied)
    return np.minimum(varied, 1, out=varied).astype(grid.dtype, copy=False)
