"""What the vectors of one modality stand for: an id, and a text or a file's path."""

import json
from functools import cached_property

import numpy as np

from taichu.errors import IndexFolderError


class Entries:
    """Lines of JSON by number, each {"id": .., MODALITY: ..}; read when they are asked for, so that
    a million take little more memory than their text.

    Args:
        modality: of all of them.
        lines: of numbers 0, 1, ..., without line breaks.
        where: they were read.
    """

    def __init__(self, modality: str, lines: list[bytes] | None = None, where: str = "index"):
        self.modality, self.where = modality, where
        self._lines: list[bytes | None] = lines or []

    def __getitem__(self, number: int) -> tuple[str, str]:
        """(id, text or path).

        Raises:
            IndexFolderError: the line is malformed.
        """
        try:
            entry = json.loads(self._lines[number])
            name, shown = entry["id"], entry[self.modality]
        except (ValueError, TypeError, KeyError, RecursionError):
            name = shown = None
        if not isinstance(name, str) or not isinstance(shown, str):
            raise IndexFolderError(
                f"{self.where}: entry {number} of {self.modality!r} is malformed"
            )
        return name, shown

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """Id -> numbers of its entries; made for who adds or deletes, not for who searches."""
        numbers: dict[str, list[int]] = {}
        for number, line in enumerate(self._lines):
            if line is not None:
                numbers.setdefault(self[number][0], []).append(number)
        return numbers

    def holds(self, name: str, shown: str) -> bool:
        """Whether there is this entry."""
        return any(self[number][1] == shown for number in self._numbers.get(name, ()))

    def add(self, name: str, shown: str) -> int:
        """Add an entry; returns its number."""
        numbers, number = self._numbers, len(self._lines)
        line = json.dumps({"id": name, self.modality: shown}, ensure_ascii=False)
        # a lone surrogate, as JSON may spell one, has no UTF-8
        self._lines.append(line.encode(errors="surrogatepass"))
        numbers.setdefault(name, []).append(number)
        return number

    def of(self, name: str) -> list[int]:
        """Numbers of an id's entries."""
        return self._numbers.get(name, [])

    def remove(self, name: str):
        """Forget the entries of an id; numbers are not given again."""
        for number in self._numbers.pop(name, ()):
            self._lines[number] = None

    def written(self, numbers: np.ndarray) -> np.ndarray:
        """The lines of these numbers, each with its line break, as bytes (b,) uint8."""
        text = b"".join(self._lines[number] + b"\n" for number in numbers)
        return np.frombuffer(text, np.uint8)
