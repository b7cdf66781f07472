"""Surfaces <-> grids of truncated signed distance: negative inside, positive outside.

The surface is marked in cells finer than the grid, what it encloses is filled, and the distance to
the marks, by a Euclidean distance transform, is signed by that and averaged over each voxel. This
asks nothing of the mesh: it need not be closed, nor its triangles be turned one way.
"""

from functools import cache

import numpy as np

from modality_adapters.mesh_file import Surface

REFINEMENT = 2  # cells a voxel along each axis
SAMPLES_A_CELL = 8  # enough that a surface has no holes that filling would leak through
MOST_SAMPLES = 400_000
SHELL = 1.5  # cells: half the thickness given to what encloses nothing, so that it has an inside


def signed_distance(
    surface: Surface, shape: tuple[int, int, int], margin: float, truncation: float
) -> np.ndarray:
    """Distance to a surface in voxels / truncation, clipped to [-1, 1]: float32 (Z, Y, X).

    The bounding box is centred in the grid, its aspect kept, `margin` voxels from the nearest
    sides. Fast: about as long as a distance transform of the fine cells takes.
    """
    vertices = _placed(surface.vertices, shape, margin)
    if len(surface.faces):
        points, reach = np.concatenate([_sample(vertices[surface.faces]), vertices]), 0.0
    else:
        points, reach = vertices, _spacing(vertices)
    marked = np.zeros([REFINEMENT * size for size in shape], bool)
    marked[tuple(points.T.astype(np.int32))] = True
    farthest = int(np.ceil(max(REFINEMENT * truncation + SHELL, reach))) + REFINEMENT
    distance = _distance(marked, farthest)
    inside = _enclosed(distance, reach, farthest)
    signed = np.where(inside, -distance, distance)
    # What encloses nothing (a sheet, a thin stroke) gets a thickness, or it would have no inside.
    lone = marked & (_distance(inside, 3) > 3)
    if lone.any():
        signed = np.minimum(signed, _distance(lone, farthest) - np.float32(SHELL))
    each = range(REFINEMENT)
    z, y, x = ([slice(start, None, REFINEMENT) for start in each] for _ in shape)
    pooled = sum(signed[a, b, c] for a in z for b in y for c in x)
    return (pooled / (REFINEMENT**4 * truncation)).clip(-1, 1)


def surface_of(field: np.ndarray) -> Surface | None:
    """The surface (marching cubes) where a grid (Z, Y, X) changes sign; None if it does not.

    Vertices are in voxels about the centre, axes (x, y, z). The grid's rim counts as outside, so
    the surface is closed.
    """
    from skimage.measure import marching_cubes

    padded = np.pad(np.asarray(field, np.float32), 1, constant_values=1)
    if not padded.min() < 0:
        return None
    vertices, faces, _, _ = marching_cubes(padded, 0.0)
    centre = (np.array(padded.shape) - 1) / 2
    # Reversing the axes mirrors the triangles, so they are turned back to face outwards.
    return Surface((vertices - centre)[:, ::-1].astype(np.float64), faces[:, ::-1].astype(np.int64))


def _placed(vertices: np.ndarray, shape: tuple[int, int, int], margin: float) -> np.ndarray:
    """Vertices in cells of the grid, axes (z, y, x): float32 (n, 3)."""
    low, high = vertices.min(0), vertices.max(0)
    room = np.array(shape[::-1]) - 2 * margin
    extent = high - low
    scale = (room[extent > 0] / extent[extent > 0]).min()
    placed = (vertices - low - extent / 2) * scale + np.array(shape[::-1]) / 2
    return (placed[:, ::-1] * REFINEMENT).astype(np.float32)


def _distance(marked: np.ndarray, farthest: int) -> np.ndarray:
    """Distance of each cell to the nearest marked one, float32; exact up to `farthest` cells.

    One axis after another, the least of f(i + k) + k^2: exact for squared distances, and in whole
    numbers for few k much faster than an unlimited transform.
    """
    limit = (farthest + 1) ** 2
    squared = np.where(marked, 0, limit).astype(np.int16 if limit < 10_000 else np.int32)
    for _ in range(squared.ndim):
        nearest = squared.copy()
        for k in range(1, min(farthest + 1, len(squared))):
            further = squared + k * k
            np.minimum(nearest[k:], further[:-k], out=nearest[k:])
            np.minimum(nearest[:-k], further[k:], out=nearest[:-k])
        squared = np.ascontiguousarray(np.moveaxis(nearest, 0, -1))  # the next axis to the front
    return np.sqrt(squared, dtype=np.float32)


def _enclosed(distance: np.ndarray, reach: float, farthest: int) -> np.ndarray:
    """Cells that the marks (distance 0), each spread by `reach` cells, shut off from the rim."""
    from scipy import ndimage

    barrier = distance <= reach
    regions, _ = ndimage.label(~barrier)
    outside = regions == regions[0, 0, 0]  # the rim is empty and in one piece
    inside = ~(outside | barrier)
    if reach and inside.any():
        # The inner half of a thick barrier belongs to the inside.
        inside |= barrier & (_distance(inside, farthest) < _distance(outside, farthest))
    return inside


def _sample(triangles: np.ndarray) -> np.ndarray:
    """Points spread evenly over triangles (m, 3, 3): float32 (n, 3).

    The points stand at equal steps of area along the list of triangles, at places within them that
    follow a sequence of low discrepancy (Roberts's R2): more even than drawn ones, and always the
    same.
    """
    corner = triangles[:, 0]
    side, other = triangles[:, 1] - corner, triangles[:, 2] - corner
    areas = np.linalg.norm(np.cross(side, other), axis=1).astype(np.float64) / 2
    total = np.cumsum(areas)
    count = int(min(SAMPLES_A_CELL * total[-1], MOST_SAMPLES))
    ends = np.rint(total * (count / max(total[-1], 1e-30))).astype(np.int64)
    face = np.repeat(np.arange(len(areas)), np.diff(ends, prepend=0))
    u, v = np.resize(_places(), (len(face), 2)).T[:, :, None]
    return corner.take(face, 0) + u * side.take(face, 0) + v * other.take(face, 0)


@cache
def _places() -> np.ndarray:
    """Weights of a triangle's two sides, evenly over the triangle: float32 (2 ** 14, 2)."""
    steps = np.arange(2**14)[:, None]
    places = (steps * np.array([0.7548776662466927, 0.5698402909980532])) % 1
    beyond = places.sum(1, keepdims=True) > 1
    return np.where(beyond, 1 - places, places).astype(np.float32)


def _spacing(points: np.ndarray) -> float:
    """How far (in cells) the marks of a cloud must reach for its surface to have no holes."""
    from scipy.spatial import cKDTree

    some = points[:: max(1, len(points) // 1000)]
    distance, _ = cKDTree(points).query(some, k=7)
    # The widest hole among scattered points is about as wide as the way to the sixth neighbour.
    return float(np.clip(np.percentile(distance[:, -1], 95), 0, 3 * REFINEMENT))
