"""A published config.json, key by key: what is asked for is checked, what is left is refused."""

from pathlib import Path

from taichu.config import nearest
from taichu.errors import CheckpointError

NEEDED = object()
LARGEST = 2.0**60  # that a number may be: far beyond any that is meant


class Settings:
    """Keys and values of a JSON object.

    Args:
        content: the object.
        where: its file, for errors.
        parent: the key under which the object stands there, if any.
    """

    def __init__(self, content: dict, where: Path, parent: str = ""):
        self.content, self.where, self.parent = content, where, parent
        self.taken: set[str] = set()

    def error(self, key: str, said: str) -> CheckpointError:
        """An error about a key."""
        return CheckpointError(f"{self.where}: {self.parent}{key} {said}")

    def take(self, key: str, kind: type, default=NEEDED):
        """A value of a type. ``default`` stands for a missing key, None for null, unless it is
        needed.

        Raises:
            CheckpointError: it is missing or of another type.
        """
        self.taken.add(key)
        value = self.content.get(key, default)
        if value is NEEDED or (value is None and default is NEEDED):
            raise self.error(key, "is missing")
        if value is None or value is default or kind is object:
            return value
        if type(value) is not kind:
            raise self.error(key, f"is {value!r}; it must be {kind.__name__}")
        return value

    def count(self, key: str, default=NEEDED) -> int | None:
        """A whole number of at least 1."""
        value = self.take(key, int, default)
        if value is not None and not 1 <= value < LARGEST:
            raise self.error(key, f"is {value}; it must be at least 1")
        return value

    def positive(self, key: str, default=NEEDED) -> float:
        """A number above 0; ``default`` stands for null, too."""
        value = self.take(key, object, default)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 < value < LARGEST:
            raise self.error(key, f"is {value!r}; it must be a number above 0")
        return float(value)

    def refuse_rest(self, silent: set[str] = frozenset()):
        """To be called at the end.

        Args:
            silent: keys that nobody needs to ask for.

        Raises:
            CheckpointError: a key was not asked for.
        """
        for key in self.content:
            if key not in self.taken and key not in silent:
                raise self.error(
                    key,
                    "is not known, and might change what is computed"
                    f"{nearest(key, self.taken)}; delete it if it does not",
                )
