"""Handwritten digits as solids: extruded, leaned, turned and written as glb.

Axes are those of glTF: x to the right, y up, z towards the viewer, who sees the digit upright.
"""

from pathlib import Path

import cv2
import numpy as np
import trimesh
from skimage.measure import marching_cubes

FINE = 24  # samples a side of the smooth drawing that is extruded
BORDER = 3  # empty samples around it, so that the surface closes
DEPTH = {"thick": 0.5, "thin": 0.16}  # of the drawing's side
LEAN = np.deg2rad(30.0)  # the top goes away from the viewer
YAW = 0.3  # radians: largest turn about the upright axis
LEVEL = 0.4  # ink at the outline


def solid(
    handwriting: np.ndarray, thickness: str, pose: str, random: np.random.Generator
) -> trimesh.Trimesh:
    """A watertight mesh of an (8, 8) digit (ink in [0, 1]), about 1 unit high.

    thickness "thick" or "thin", pose "upright" or "leaning"; turned at random by up to 0.3 radians.
    """
    vertices, faces = _extrude(_smooth(handwriting), DEPTH[thickness])
    turn = _rotation(1, random.uniform(-YAW, YAW))
    if pose == "leaning":
        turn = turn @ _rotation(0, -LEAN)
    return trimesh.Trimesh(vertices @ turn.T, faces, process=False)


def write_solid(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write a mesh as glb."""
    path.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh)))


def _smooth(handwriting: np.ndarray) -> np.ndarray:
    """(8, 8) ink -> (FINE + 2 BORDER,) * 2 smooth ink, zero at the border."""
    fine = cv2.resize(handwriting, (FINE, FINE), interpolation=cv2.INTER_CUBIC)
    fine = np.pad(fine, BORDER)
    fine = cv2.GaussianBlur(fine, (0, 0), 1.2)
    fine[[0, -1], :] = 0
    fine[:, [0, -1]] = 0
    return fine


def _extrude(ink: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) and faces (m, 3) of the solid where ink > LEVEL and |z| < depth / 2.

    Two planes inside hold the drawing, two outside its negative: the surface between an inner and
    an outer plane lies exactly half way, so the lids are flat.
    """
    drawing = ink - LEVEL
    outside = -np.abs(drawing)
    vertices, faces, _, _ = marching_cubes(
        np.stack([outside, drawing, drawing, outside], axis=2), 0.0
    )
    row, column, plane = vertices.T
    middle = (ink.shape[0] - 1) / 2
    z = np.interp(plane, range(4), depth / 2 * np.array([-1.25, -0.75, 0.75, 1.25]))
    return np.stack([(column - middle) / FINE, (middle - row) / FINE, z], axis=1), faces[:, ::-1]


def _rotation(axis: int, angle: float) -> np.ndarray:
    """(3, 3) rotation about axis 0 (x) or 1 (y), radians, right-handed."""
    first, second = ((1, 2), (2, 0))[axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
