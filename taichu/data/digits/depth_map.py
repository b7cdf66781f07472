"""Solids as a depth camera sees them: 16-bit png, millimetres, 0 where there is nothing."""

from pathlib import Path

import cv2
import numpy as np
import trimesh

SIDE = 64  # pixels a side
DISTANCE = 2.0  # metres from the camera to the middle of a solid, which is about 1 high
FOCAL = 1.6 * SIDE  # of the lens, in pixels
FINE = 4  # faces are drawn this many times larger, so that their edges stand where they should


def depth_map(mesh: trimesh.Trimesh) -> np.ndarray:
    """(SIDE, SIDE) uint16 of a solid seen from its front, x to the right, y up, z to the camera.

    Faces are drawn from the farthest to the nearest, each at the depth of its middle: a solid's are
    small (a few centimetres).
    """
    x, y, z = np.asarray(mesh.vertices, np.float64).T
    away = DISTANCE - z
    middle = (SIDE - 1) / 2
    columns, rows = middle + FOCAL * x / away, middle - FOCAL * y / away
    corners = np.rint((np.stack([columns, rows], 1) + 0.5) * FINE - 0.5).astype(np.int32)
    depths = np.rint(1000 * away[mesh.faces].mean(1)).astype(int)
    canvas = np.zeros((SIDE * FINE, SIDE * FINE), np.uint16)
    for face in np.argsort(-depths, kind="stable"):
        cv2.fillConvexPoly(canvas, corners[mesh.faces[face]], int(depths[face]))
    return canvas[FINE // 2 :: FINE, FINE // 2 :: FINE].copy()


def write_depth_map(depths: np.ndarray, path: Path) -> None:
    """Write (Y, X) uint16 as png."""
    if not cv2.imwrite(str(path), depths):
        raise OSError(f"{path}: could not be written")
