"""An index: the vectors of a collection, what they stand for, and which model made them.

OUT/index.safetensors   one file, so that it is replaced as a whole, or not at all
    MODALITY.vectors    (n, C) float32, unit length, list by list
    MODALITY.sizes      (L,) int64, how many vectors each list has
    MODALITY.centroids  (L, C) float32
    MODALITY.entries    lines of JSON, one a vector, as bytes: {"id": .., MODALITY: text or path}
    origin              (m, C) float32, what the model made of fixed contents
its notes   format, embedding, metric, probes of each modality, model's folder and modalities

Each modality has lists of its own: embeddings of one lie together, and are often asked for alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichu.errors import CheckpointError, IndexFolderError
from taichu.index.entries import Entries
from taichu.index.inverted_file import TRIED, InvertedFile, Lists
from taichu.index.origin import Origin
from taichu.storage.tensor_file import load_tensors, save_tensors

FILE = "index.safetensors"
FORMAT = 1
METRIC = "inner product of unit vectors"


@dataclass(frozen=True)
class Found:
    """One result.

    Attributes:
        id: of the row. modality: of the entry.
        shown: the text, or the file's path.
        cosine: with the query.
    """

    id: str
    modality: str
    shown: str
    cosine: float


class Index:
    """Unit vectors, each with an id, a modality, and a text or path. Several threads may search at
    once, while none changes it.

    Args:
        size: C, numbers of a vector.
        origin: the model that makes them, where there is one.
    """

    def __init__(self, size: int, origin: Origin | None = None):
        self.size, self.origin = size, origin
        self._files: dict[str, InvertedFile] = {}
        self._entries: dict[str, Entries] = {}

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether a folder holds an index."""
        return (Path(folder) / FILE).is_file()

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Read what `save` wrote; who it is from need not be trusted.

        Raises:
            IndexFolderError: there is no index, or it is damaged.
        """
        path = Path(folder) / FILE
        if not cls.exists(folder):
            raise IndexFolderError(f"{folder}: not an index; it holds no {FILE}")
        try:
            tensors, notes = load_tensors(path)
        except CheckpointError as error:
            raise IndexFolderError(str(error)) from None
        index = cls(*_read_notes(path, tensors, notes))
        for modality, probes in notes["probes"].items():
            lists, lines = _read_modality(path, tensors, modality, index.size, probes)
            index._files[modality] = InvertedFile.of(lists)
            index._entries[modality] = Entries(modality, lines, str(path))
        return index

    def save(self, folder: Path | str):
        """Write the folder; what was there before is whole until all of it is written.

        Raises:
            DiskFullError: there is no room for it.
        """
        tensors, probes = {}, {}
        for modality, file in self._files.items():
            if not len(file):
                continue
            lists = file.lists()
            tensors[f"{modality}.vectors"] = lists.vectors
            tensors[f"{modality}.sizes"] = lists.sizes
            tensors[f"{modality}.centroids"] = lists.centroids
            tensors[f"{modality}.entries"] = self._entries[modality].written(lists.numbers)
            probes[modality] = lists.probes
        notes = {"format": FORMAT, "embedding": self.size, "metric": METRIC, "probes": probes}
        if self.origin:
            tensors["origin"] = self.origin.vectors
            notes |= {"model": self.origin.folder, "modalities": self.origin.modalities}
        save_tensors(Path(folder) / FILE, tensors, notes)

    @property
    def counts(self) -> dict[str, int]:
        """Modality -> how many entries."""
        return {modality: len(file) for modality, file in self._files.items() if len(file)}

    def holds(self, modality: str, name: str, shown: str) -> bool:
        """Whether there is an entry of this id with this text or path."""
        return modality in self._entries and self._entries[modality].holds(name, shown)

    def add(self, modality: str, entries: list[tuple[str, str]], vectors: np.ndarray) -> int:
        """Add entries that are not there yet.

        Args:
            modality: of all of them.
            entries: (n) of (id, text or path).
            vectors: (n, C), unit length.

        Returns:
            How many were new.

        Raises:
            IndexFolderError: the vectors have another shape, or are no unit vectors.
        """
        vectors = self._checked(vectors)
        if len(vectors) != len(entries):
            raise IndexFolderError(f"{len(entries)} entries, but {len(vectors)} vectors")
        held = self._entries.setdefault(modality, Entries(modality))
        file = self._files.setdefault(modality, InvertedFile(self.size))
        rows, numbers = [], []
        for row, (name, shown) in enumerate(entries):
            if not held.holds(name, shown):
                rows.append(row)
                numbers.append(held.add(name, shown))
        if rows:
            new = vectors if len(rows) == len(vectors) else vectors[rows]
            file.add(new, np.array(numbers, np.int64))
            self._arrange(modality)
        return len(rows)

    def delete(self, names: list[str]) -> int:
        """Delete all entries of these ids, in every modality.

        Returns:
            How many entries that was.

        Raises:
            IndexFolderError: ids that are not there; nothing is deleted then.
        """
        wanted = dict.fromkeys(names)
        lacking = [n for n in wanted if not any(held.of(n) for held in self._entries.values())]
        if lacking:
            raise IndexFolderError(f"not in the index: {', '.join(map(repr, lacking))}")
        numbers = {
            modality: [number for name in wanted for number in held.of(name)]
            for modality, held in self._entries.items()
        }
        for modality, deleted in numbers.items():
            if deleted:
                self._files[modality].remove(np.array(deleted, np.int64))
                for name in wanted:
                    self._entries[modality].remove(name)
                self._arrange(modality)
        return sum(map(len, numbers.values()))

    def search(
        self, vectors: np.ndarray, top: int, modality: str | None = None
    ) -> list[list[Found]]:
        """The entries nearest to each query, best first.

        Args:
            vectors: (Q, C), unit length.
            top: how many; all, where there are fewer.
            modality: that is looked for; by default all.

        Raises:
            IndexFolderError: the vectors have another shape, or are no unit vectors; or nothing is
                there of the modality.
        """
        vectors = self._checked(vectors)
        if modality is not None and modality not in self.counts:
            known = ", ".join(self.counts) or "nothing"
            raise IndexFolderError(f"nothing of {modality!r} is in the index; it holds {known}")
        results: list[list[tuple[float, str, int]]] = [[] for _ in vectors]
        for name in self.counts if modality is None else (modality,):
            numbers, scores = self._files[name].search(vectors, top)
            for result, row, score in zip(results, numbers.tolist(), scores.tolist()):
                result.extend((s, name, number) for number, s in zip(row, score))
        for result in results:
            result.sort(key=lambda found: -found[0])
        return [[self._found(*found) for found in result[:top]] for result in results]

    def _found(self, cosine: float, modality: str, number: int) -> Found:
        name, shown = self._entries[modality][number]
        return Found(name, modality, shown, cosine)

    def _arrange(self, modality: str):
        """Make new lists where they no longer fit; queries may be of any modality."""
        if self._files[modality].misfit:
            others = [self._files[name] for name in self.counts if name != modality]
            self._files[modality].arrange([file.sample(TRIED) for file in others])

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise IndexFolderError(
                f"vectors of shape {list(vectors.shape)}; the index wants [n, {self.size}]"
            )
        if not _are_unit(vectors):
            raise IndexFolderError("vectors that are not of unit length")
        return vectors


def _are_unit(vectors: np.ndarray) -> bool:
    return bool(np.all(np.abs(np.einsum("nc,nc->n", vectors, vectors) - 1) < 1e-3))


def _read_notes(path: Path, tensors: dict, notes) -> tuple[int, Origin | None]:
    """Size and origin."""
    if not isinstance(notes, dict) or notes.get("format") != FORMAT:
        raise IndexFolderError(f"{path}: not an index of format {FORMAT}")
    size, probes = notes.get("embedding"), notes.get("probes")
    _demand(type(size) is int and size > 0, path, "embedding must be a number above 0")
    _demand(notes.get("metric") == METRIC, path, f"metric must be {METRIC!r}")
    _demand(isinstance(probes, dict), path, "probes must be an object")
    if "model" not in notes:
        return size, None
    folder, modalities = notes["model"], notes.get("modalities")
    _demand(isinstance(folder, str) and isinstance(modalities, dict), path, "model is malformed")
    vectors = _tensor(path, tensors, "origin", np.float32, (len(modalities) + 1, size))
    return size, Origin(folder, modalities, vectors)


def _read_modality(
    path: Path, tensors: dict, modality: str, size: int, probes
) -> tuple[Lists, list[bytes]]:
    """Lists and lines, whose sizes agree."""
    sizes = _tensor(path, tensors, f"{modality}.sizes", np.int64, (None,))
    vectors = _tensor(path, tensors, f"{modality}.vectors", np.float32, (None, size))
    centroids = _tensor(path, tensors, f"{modality}.centroids", np.float32, (len(sizes), size))
    text = _tensor(path, tensors, f"{modality}.entries", np.uint8, (None,))
    count = len(vectors)
    good = len(sizes) and np.all((sizes >= 0) & (sizes <= count)) and sizes.sum() == count
    _demand(good, path, f"{modality}.sizes: must be those of {count} vectors")
    good = type(probes) is int and 1 <= probes <= len(sizes)
    _demand(good, path, f"probes of {modality!r} must be from 1 to {len(sizes)}")
    _demand(np.isfinite(centroids).all(), path, f"{modality}.centroids: not finite")
    _demand(_are_unit(vectors), path, f"{modality}.vectors: not of unit length")
    lines = text.tobytes().split(b"\n")
    good = len(lines) == count + 1 and not lines.pop()
    _demand(good, path, f"{modality}.entries: must be {count} lines")
    return Lists(vectors, np.arange(count), sizes, centroids, probes), lines


def _tensor(path: Path, tensors: dict, name: str, dtype, shape: tuple) -> np.ndarray:
    """A tensor of this type and shape; None stands for any length."""
    tensor = tensors.get(name)
    _demand(tensor is not None, path, f"tensor {name!r} is missing")
    fits = tensor.ndim == len(shape) and all(s in (None, t) for s, t in zip(shape, tensor.shape))
    _demand(fits and tensor.dtype == dtype, path, f"tensor {name!r} has another shape or type")
    return tensor


def _demand(good, path: Path, what: str):
    if not good:
        raise IndexFolderError(f"{path}: {what}")
