"""Manifests: the one format of data, ours and the users'.

One JSON object a line: ``id``, ``split``, any subset of ``text`` and of the model's modalities
(``image``, ``audio``, ``video``, ``shape3d``, ``depth``), and optional ``labels`` for evaluation.
Media are paths relative to the manifest and inside its folder; text is a string, a list of strings,
or {"en": .., "zh": ..} of either. Of a list the first is the sample's caption, the one that is
written; the others are also true of it, such as "seven" beside "a red seven at the top left".
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from taichu.config import nearest
from taichu.data.media_folder import MediaFolder
from taichu.errors import ManifestError
from taichu.vocabulary import TEXT

MAX_LINE = 1 << 20  # characters; a longer line is no row of a manifest


@dataclass(frozen=True)
class Sample:
    """One row. ``texts`` holds (language, text), in order within each language; the language is ""
    where none is given."""

    line: int
    id: str
    split: str
    texts: tuple[tuple[str, str], ...] = ()
    media: dict[str, Path] = field(default_factory=dict)
    labels: dict = field(default_factory=dict)

    def captions(self, number: int) -> list[tuple[str, str]]:
        """(language, text): in each language the text of this number, or the last where there are
        fewer; of number 0 the sample's caption."""
        of_language: dict[str, list[str]] = {}
        for language, text in self.texts:
            of_language.setdefault(language, []).append(text)
        return [(name, texts[min(number, len(texts) - 1)]) for name, texts in of_language.items()]

    @property
    def most_captions(self) -> int:
        """Texts of the language that has most."""
        return max(Counter(language for language, _ in self.texts).values(), default=0)


def read_manifest(path: Path | str, modalities, problems: list[str] | None = None) -> list[Sample]:
    """Read every row.

    Args:
        path: the .jsonl file.
        modalities: names of the grid modalities a row may hold.
        problems: where given, each malformed row adds one line to it and is left out; otherwise
            the first one raises.

    Raises:
        ManifestError: the file is missing or not UTF-8, or a row is malformed.
    """
    path = Path(path)
    samples, seen = [], {}
    folder = MediaFolder(path.parent, "the manifest's folder")
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    sample = _parse(line, number, folder, tuple(modalities))
                    if sample.id in seen:
                        raise ManifestError(
                            f"id {sample.id!r} stands in line {seen[sample.id]} too"
                        )
                    seen[sample.id] = number
                    samples.append(sample)
                except ManifestError as error:
                    message = f"{path}:{number}: {error}"
                    if problems is None:
                        raise ManifestError(message) from None
                    problems.append(message)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    return samples


def _parse(line: str, number: int, folder: MediaFolder, modalities: tuple[str, ...]) -> Sample:
    if len(line) > MAX_LINE:
        raise ManifestError(f"the line is longer than {MAX_LINE} characters")
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise ManifestError("not a JSON object") from None
    if not isinstance(row, dict):
        raise ManifestError("not a JSON object")
    return parse_row(row, number, folder, modalities)


def parse_row(row: dict, number: int, folder: MediaFolder, modalities: tuple[str, ...]) -> Sample:
    """A row's sample.

    Raises:
        ManifestError: it is malformed.
    """
    known = ("id", "split", "labels", TEXT, *modalities)
    for key in row:
        if key not in known:
            raise ManifestError(f"unknown key {key!r}{nearest(key, known)}")
    name, split, labels = row.get("id"), row.get("split", "train"), row.get("labels", {})
    if not isinstance(name, str) or not name:
        raise ManifestError("'id' must be a string")
    if split not in ("train", "test"):
        raise ManifestError(f"'split' must be 'train' or 'test', not {split!r}")
    if not isinstance(labels, dict):
        raise ManifestError("'labels' must be an object")
    media = {m: folder.path(row[m], repr(m)) for m in modalities if m in row}
    texts = _texts(row[TEXT]) if TEXT in row else ()
    if not media and not texts:
        raise ManifestError(f"holds none of {', '.join((TEXT, *modalities))}")
    return Sample(number, name, split, texts, media, labels)


def _texts(value) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        pairs = [("", text) for text in value]
    elif isinstance(value, dict):
        pairs = [
            (language, text)
            for language, entry in value.items()
            for text in (entry if isinstance(entry, list) else [entry])
        ]
    else:
        raise ManifestError("'text' must be a string, a list, or an object of languages")
    if not pairs or not all(isinstance(text, str) and text for _, text in pairs):
        raise ManifestError("'text' must hold strings that are not empty")
    return tuple(pairs)
