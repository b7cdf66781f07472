"""3D shapes: obj, stl, ply, glb and off <-> grids (Z, Y, X, 1) of truncated signed distance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modality_adapters.adapter import GridAdapter
from modality_adapters.errors import MediaError
from modality_adapters.files import require_file
from modality_adapters.mesh_file import read_surface, write_surface
from modality_adapters.signed_distance import signed_distance, surface_of


@dataclass(frozen=True)
class Shape3dAdapter(GridAdapter):
    """Reads a mesh, a scene of meshes or a point cloud, centred and fitted into the grid.

    A value is the distance to the surface in voxels / `truncation`, negative inside, clipped to
    [-1, 1]. What encloses nothing (a sheet, an open mesh) is read as a thin shell.

    Args:
        geometry: grid (Z, Y, X, 1).
        margin: voxels left free between the shape and the sides of the grid.
        truncation: distance in voxels at which values reach -1 and 1.
        max_bytes: larger files are refused before they are read.
        max_vertices: shapes of more vertices are refused.
    """

    name = "shape3d"
    suffixes = (".obj", ".stl", ".ply", ".glb", ".off")
    channels = 1

    margin: float = 2.0
    truncation: float = 3.0
    max_bytes: int = 256_000_000
    max_vertices: int = 5_000_000

    def __post_init__(self):
        super().__post_init__()
        if 2 * self.margin >= min(self.geometry.shape[:3]) or self.margin < 1:
            raise ValueError(f"shape3d: margin {self.margin} must be at least 1 and leave room")

    def _read(self, path: Path) -> np.ndarray:
        require_file(path, self.suffixes, self.max_bytes)
        surface = read_surface(path, self.max_vertices)
        shape = self.geometry.shape[:3]
        return signed_distance(surface, shape, self.margin, self.truncation)[..., None]

    def _write(self, grid: np.ndarray, path: Path) -> None:
        surface = surface_of(grid[..., 0])
        if surface is None:
            raise MediaError(
                path, "cannot be written: the grid holds no surface, it is all outside"
            )
        write_surface(surface, path)

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """Shift by up to 1 voxel, move the surface in or out a little, add light noise."""
        varied = np.full(grid.shape, 1, np.float32)
        source, target = [], []
        for size in grid.shape[:3]:
            step = round(strength * (int(3 * random.random()) - 1))
            source.append(slice(max(0, -step), size - max(0, step)))
            target.append(slice(max(0, step), size - max(0, -step)))
        varied[tuple(target)] = grid[tuple(source)]
        noise = random.random(grid.shape, np.float32) - np.float32(0.5)
        varied += noise * np.float32(0.06 * strength)
        varied += np.float32(0.16 * strength * (random.random() - 0.5))
        return np.clip(varied, -1, 1, out=varied).astype(grid.dtype, copy=False)


ADAPTER = Shape3dAdapter
