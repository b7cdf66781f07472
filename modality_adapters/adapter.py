"""What the adapters of all grid modalities share: geometry, settings, checks around read and write.

An adapter is a frozen dataclass whose fields are its settings, so equality, `settings()` and the
names that `create_adapter` accepts follow from the fields.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from modality_adapters.errors import MediaError
from modality_adapters.files import replacing, require_file, require_suffix
from modality_adapters.grid import GridGeometry


@dataclass(frozen=True)
class GridAdapter:
    """Base of the adapters of image, audio, video, shape3d and depth.

    A subclass gives `name`, `suffixes`, `_read`, `_write`, `augment` and further settings, which
    are positive numbers with defaults.
    """

    name: ClassVar[str]
    form: ClassVar[str] = ""  # another adapter of the same modality has another
    suffixes: ClassVar[tuple[str, ...]]
    channels: ClassVar[int]
    flat_axes: ClassVar[tuple[int, ...]] = ()  # axes of the grid that must have size 1

    geometry: GridGeometry

    def __post_init__(self):
        shape = self.geometry.shape
        if shape[3] != self.channels or any(shape[axis] != 1 for axis in self.flat_axes):
            sizes = ["T", "Y", "X", str(self.channels)]
            for axis in self.flat_axes:
                sizes[axis] = "1"
            raise ValueError(f"{self.name}: shape must be ({', '.join(sizes)}), not {shape}")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, field.name, value)
            if type(value) is not field.type or not value > 0:
                kind = "integer" if field.type is int else "number"
                raise ValueError(f"{self.name}: {field.name} must be a positive {kind}: {value!r}")

    def read(self, path: str | Path) -> np.ndarray:
        """The grid of a media file, float16 (T, Y, X, C) in [-1, 1].

        Raises MediaError for anything that cannot be read whole, before much memory is used.
        """
        path = require_file(path, self.suffixes)
        return self._read(path).astype(np.float16, copy=False)

    def write(self, grid: np.ndarray, path: str | Path) -> Path:
        """Write a grid (T, Y, X, C) in [-1, 1] as a media file; its suffix chooses the kind.

        The file appears whole or not at all. Values outside the range are clipped. Raises
        ValueError for a grid of another shape or with NaN, MediaError when it cannot be written.
        """
        path = require_suffix(path, self.suffixes)
        grid = np.asarray(grid, np.float32)
        if grid.shape != self.geometry.shape:
            raise ValueError(f"{self.name}: grid {grid.shape} is not {self.geometry.shape}")
        if np.isnan(grid).any():
            raise ValueError(f"{self.name}: the grid holds NaN")
        with replacing(path) as temporary:
            try:
                self._write(grid.clip(-1, 1), temporary)
            except MediaError as error:
                raise MediaError(path, error.reason) from error  # not the temporary name
        return path

    def settings(self) -> dict:
        """The settings as JSON-able values; `create_adapter(name, settings)` gives an equal one."""
        settings = {"form": self.form} if self.form else {}
        settings |= {"shape": list(self.geometry.shape), "patch": list(self.geometry.patch)}
        for field in fields(self)[1:]:
            settings[field.name] = getattr(self, field.name)
        return settings

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """A varied copy of a grid that still shows the same thing: same shape, dtype and range.

        `strength` scales how far every change may go, from 0 (none) to 1: long trainings want much,
        as they would learn the files by heart, short ones little, as they do not come to that.

        float32 grids are varied in half the time, since processors compute in that.
        """
        raise NotImplementedError

    def _read(self, path: Path) -> np.ndarray:
        raise NotImplementedError

    def _write(self, grid: np.ndarray, path: Path) -> None:
        raise NotImplementedError
