"""Pixels <-> grid values: what images, video frames and depth maps share."""

from functools import cache

import cv2
import numpy as np

# How much `vary` changes at most: turned by radians, zoomed and sheared by shares, shifted by
# pixels; and the deviation of its bending, in pixels at nodes that a cubic surface joins.
TURN, ZOOM, SHEAR, SHIFT = np.deg2rad(12), 0.1, 0.15, 0.5
BEND, NODES = 0.8, (5, 5)

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
    rows, columns, shrinks = middle(h, w, height, width)
    # Averaging areas keeps thin strokes when shrinking; it would make blocks when enlarging.
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    size = columns.stop - columns.start, rows.stop - rows.start
    framed = np.zeros((height, width, 3), np.uint8)
    framed[rows, columns] = cv2.resize(pixels, size, interpolation=method)
    return framed


def middle(h: int, w: int, height: int, width: int) -> tuple[slice, slice, bool]:
    """Rows and columns of (height, width) that pixels (h, w) fill when their aspect is kept and
    they are centred, and whether they are shrunk."""
    scale = min(height / h, width / w)
    inner_h, inner_w = (min(max(1, round(n * scale)), m) for n, m in ((h, height), (w, width)))
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    return slice(top, top + inner_h), slice(left, left + inner_w), scale < 1


def vary(
    grid: np.ndarray, random: np.random.Generator, strength: float, noise: float
) -> np.ndarray:
    """Turn, zoom, shear, shift and bend all frames of (T, Y, X, C) alike, a little; vary their
    contrast.

    Bending by a smooth random field makes of one hand's figure another's (Simard et al., ICDAR
    2003, section 2). Nothing moves by more than what a caption speaks of, so that "left" and "at
    the top" stay true; the three colours move alike, so that "red" does. Black (-1) enters at the
    edges and stays black, so that a background is not mistaken for a colour; `noise` is the half
    width of uniform noise. `strength` (0 to 1) scales it all. Never flips.
    """
    _, height, width, _ = grid.shape
    draws = (2 * random.random(7, np.float32) - 1) * np.float32(strength)
    angle, shear, shift = TURN * draws[0], SHEAR * draws[1], SHIFT * draws[2:4]
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]], np.float32)
    move = turn @ np.array([[1, shear], [0, 1]], np.float32) / (1 + ZOOM * draws[4:6])
    bend = random.standard_normal((*NODES, 2), np.float32) * np.float32(BEND * strength)
    bend -= bend.mean((0, 1))
    # where the value of each pixel comes from
    centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    source = (_places(height, width) - centre) @ move.T + (centre + shift)
    source += cv2.resize(bend, (width, height), interpolation=cv2.INTER_CUBIC)
    varied = np.empty(grid.shape, np.float32)
    for frame, target in zip(grid.astype(np.float32, copy=False), varied):
        cv2.remap(frame, source, None, cv2.INTER_LINEAR, target, borderValue=(-1, -1, -1, -1))
    light = 1 - 0.025 * strength + 0.125 * draws[6]  # scale of brightness above black
    varied *= light
    varied += light - 1
    if noise:
        spread = np.float32(2 * noise * strength)
        varied += (random.random(grid.shape, np.float32) - np.float32(0.5)) * spread
    np.maximum(varied, -1, out=varied)
    return np.minimum(varied, 1, out=varied).astype(grid.dtype, copy=False)


@cache
def _places(height: int, width: int) -> np.ndarray:
    """(x, y) of every pixel, (height, width, 2)."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
