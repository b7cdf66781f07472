"""Vertices and triangles of 3D files (obj, stl, ply, glb, off) through trimesh."""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modality_adapters.errors import MediaError
from modality_adapters.files import decoding

FEWEST_POINTS = 16  # of a point cloud


@dataclass(frozen=True)
class Surface:
    """Triangles, or the points of a cloud where `faces` is empty.

    vertices: float64 (n, 3), finite, axes (x, y, z); faces: int64 (m, 3), indices of vertices.
    """

    vertices: np.ndarray
    faces: np.ndarray


def read_surface(path: Path, max_vertices: int) -> Surface:
    """All meshes of a file, placed as its scene says; its points if it holds no triangles.

    Only this file is opened: materials, textures and buffers in other files are not followed.
    Raises MediaError for a damaged file, one without triangles or points, vertices that are not
    finite, or more than max_vertices vertices.
    """
    import trimesh

    kind = path.suffix.lower()[1:]
    data = path.read_bytes()
    _check_claims(path, kind, data, max_vertices)
    with decoding(path):
        # From memory and without a resolver, trimesh cannot open anything else.
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=kind, process=False, skip_materials=True
        )
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        parts = [(scene.geometry[name], transform) for transform, name in placed]
    return _join(path, parts, max_vertices)


def write_surface(surface: Surface, path: Path) -> None:
    """Write triangles as the kind of file that the suffix names."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    data = mesh.export(file_type=path.suffix.lower()[1:])
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _join(path: Path, parts: list, max_vertices: int) -> Surface:
    """One surface of several geometries and their transforms (4, 4)."""
    sizes = [len(getattr(geometry, "vertices", ())) for geometry, _ in parts]
    if sum(sizes) > max_vertices:
        reason = f"has {sum(sizes):,} vertices, more than the limit of {max_vertices:,}"
        raise MediaError(path, reason)
    vertices, faces, offset = [], [], 0
    for (geometry, transform), size in zip(parts, sizes, strict=True):
        if not size:
            continue
        points = np.asarray(geometry.vertices, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            vertices.append(points @ transform[:3, :3].T + transform[:3, 3])
        part = np.asarray(getattr(geometry, "faces", ()), np.int64).reshape(-1, 3)
        if part.size and (part.min() < 0 or part.max() >= size):
            raise MediaError(path, "has faces of vertices that do not exist")
        faces.append(part + offset)
        offset += size
    if not vertices:
        raise MediaError(path, "has no faces and no points")
    surface = Surface(np.concatenate(vertices), np.concatenate(faces))
    with np.errstate(over="ignore", invalid="ignore"):
        extent = np.ptp(surface.vertices, axis=0)
    if not np.isfinite(extent).all():  # NaN or infinite, or so large that distances are
        raise MediaError(path, "has vertices that are not finite numbers")
    if not len(surface.faces) and len(surface.vertices) < FEWEST_POINTS:
        raise MediaError(path, f"has no faces, and {offset} points are too few for a point cloud")
    if not extent.any():
        raise MediaError(path, "has no extent: all its vertices are one point")
    return surface


def _check_claims(path: Path, kind: str, data: bytes, max_vertices: int) -> None:
    """MediaError for a header that promises more than the file holds or than is allowed."""
    if kind == "stl" and len(data) >= 84 and data.lstrip()[:5] != b"solid":
        if 84 + 50 * int.from_bytes(data[80:84], "little") > len(data):
            raise MediaError(path, "is truncated, or no stl file")
    elif kind == "stl" and data.lstrip()[:5] == b"solid" and b"endsolid" not in data[-1024:]:
        triangles = int.from_bytes(data[80:84], "little")
        if len(data) < 84 or 84 + 50 * triangles > len(data):  # binary ones may begin so too
            raise MediaError(path, "is truncated")
    elif kind == "glb":
        if data[:4] != b"glTF" or len(data) < 20:
            raise MediaError(path, "is not a glb file")
        if int.from_bytes(data[8:12], "little") > len(data):
            raise MediaError(path, "is truncated")
        with decoding(path):
            tree = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
            # An accessor without a buffer stands for any number of zeros.
            claimed = max((a["count"] for a in tree.get("accessors", ())), default=0)
        if claimed > 6 * max_vertices:
            raise MediaError(path, f"claims {claimed:,} values, more than the limit")
    elif kind == "off":
        numbers = re.sub(rb"#[^\n]*", b"", data).split()
        if not numbers or not numbers[0].endswith(b"OFF") or len(numbers) < 4:
            raise MediaError(path, "is not an off file")
        counts = numbers[1:3]
        if not all(count.isdigit() for count in counts):
            raise MediaError(path, "has a damaged header")
        if len(numbers) < 4 + 3 * int(counts[0]) + 4 * int(counts[1]):  # triangles at the least
            raise MediaError(path, "is truncated")
    elif kind == "ply":
        head = data[: data.find(b"end_header")].split()
        counts = [head[i + 2] for i in range(len(head) - 2) if head[i] == b"element"]
        if any(not count.isdigit() or int(count) > len(data) for count in counts):
            raise MediaError(path, "is truncated, or its header is damaged")
