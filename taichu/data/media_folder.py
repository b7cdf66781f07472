"""The folder that the paths of a data set are relative to, and must not leave."""

from functools import cache
from pathlib import Path

from taichu.errors import ManifestError


class MediaFolder:
    """A folder.

    Args:
        root: of it.
        name: what errors call it.
    """

    def __init__(self, root: Path, name: str):
        self.root, self.name = root, name
        real = root.resolve()
        # asked of the files' folders, which are few
        self._holds = cache(lambda folder: folder.resolve().is_relative_to(real))

    def path(self, value, key: str) -> Path:
        """The path that a row gives.

        Args:
            value: of the row.
            key: where the row has it, for errors.

        Raises:
            ManifestError: it is no path, or leaves the folder.
        """
        if not isinstance(value, str) or not value or "\0" in value:
            raise ManifestError(f"{key} must be a path")
        path = self.root / value
        plain = path.name not in ("", "..") and not path.is_symlink()
        if not self._holds(path.parent if plain else path):
            raise ManifestError(f"{key}: {value!r} leaves {self.name}")
        return path
