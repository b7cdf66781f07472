"""Pictures of solids: a grid of truncated signed distance, swinging before the viewer."""

import numpy as np
from scipy.ndimage import map_coordinates

SIZE = 64  # pixels a side
STEPS = 32  # along a ray
SWING = np.deg2rad(35.0)  # how far a solid turns to either side
PITCH = np.deg2rad(14.0)  # how far the viewer stands above
LIGHT = np.array([0.35, 0.45, 0.82])  # where it comes from: right, up, towards the viewer
COLOUR = np.array([116, 178, 246], np.float32)  # of the lit side
SHADE = 0.34  # share of it that the dark side keeps


def swinging(grid: np.ndarray, views: int = 6) -> list[np.ndarray]:
    """Frames (SIZE, SIZE, 4) uint8 RGBA of a grid (Z, Y, X, 1), there and back, for a loop."""
    angles = SWING * np.sin(np.linspace(-np.pi / 2, np.pi / 2, views))
    frames = [view(grid, angle) for angle in angles]
    return frames + frames[-2:0:-1]


def view(grid: np.ndarray, yaw: float) -> np.ndarray:
    """One picture (SIZE, SIZE, 4) uint8 RGBA of a grid (Z, Y, X, 1), turned by `yaw` radians.

    The viewer looks along -z with y up. Parallel rays go through the field; where its sign first
    changes is the surface, and its slope there the normal. All outside gives an empty picture.
    """
    field = np.asarray(grid, np.float32)[..., 0]
    reach = 0.56 * max(field.shape)  # voxels from the centre to the picture's sides
    turn = _turn(yaw)
    side, along = np.linspace(-reach, reach, SIZE), np.linspace(reach, -reach, STEPS)
    towards, up, right = np.meshgrid(along, -side, side, indexing="ij")
    rays = np.stack([right, up, towards], -1)  # (STEPS, SIZE, SIZE, 3), nearest first
    values = _sample(field, rays @ turn)
    first = np.maximum((values < 0).argmax(0), 1)[None]
    before, after = (np.take_along_axis(values, k, 0)[0] for k in (first - 1, first))
    share = np.clip(before / np.maximum(before - after, 1e-6), 0, 1)
    points = rays[0].copy()
    points[..., 2] -= (first[0] - 1 + share) * (2 * reach / (STEPS - 1))
    facing = np.clip(_normals(field, points @ turn) @ turn.T @ LIGHT, 0, 1)
    nearness = 1 + 0.12 * points[..., 2] / reach
    light = (SHADE + (1 - SHADE) * facing) * nearness
    colour = np.clip(light[..., None] * COLOUR + 30 * facing[..., None] ** 16, 0, 255)
    # the least value along a ray tells how nearly it passes by: soft outlines
    alpha = np.clip(0.5 - values.min(0) * 4, 0, 1)
    return np.concatenate([colour, 255 * alpha[..., None]], -1).astype(np.uint8)


def _turn(yaw: float) -> np.ndarray:
    """(3, 3) from the viewer's axes (right, up, towards) to the solid's (x, y, z), for rows."""
    c, s = np.cos(PITCH), np.sin(PITCH)
    pitch = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    return (pitch @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)


def _sample(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values (...) of a field (Z, Y, X) at points (..., 3), axes (x, y, z) about its centre."""
    centre = (np.array(field.shape, np.float32) - 1) / 2
    at = np.moveaxis(points[..., ::-1] + centre, -1, 0)
    return map_coordinates(field, at, order=1, mode="constant", cval=1.0)


def _normals(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit normals (..., 3) towards the outside."""
    steps = 0.8 * np.eye(3, dtype=np.float32)
    slopes = [_sample(field, points + step) - _sample(field, points - step) for step in steps]
    normals = np.stack(slopes, -1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
