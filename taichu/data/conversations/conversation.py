r"""A conversation: what a row of every format comes to.

A text may hold placeholders, ``<image>``, ``<audio>``, ``<video>``, ``<shape3d>``, ``<depth>``,
where media stand; ``\<image>`` is the word itself. Media are listed beside the text, in the order
of their placeholders; a modality's column is named as ``images`` or ``image``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from modality_adapters import ADAPTERS
from taichu.data.media_folder import MediaFolder
from taichu.errors import ConversationError
from taichu.vocabulary import TEXT

MEDIA = tuple(name for name in ADAPTERS if name != TEXT)
COLUMNS = {name: (f"{name}s", name) for name in MEDIA}
COLUMNS["shape3d"] = ("shapes", "shape3d", "points")
PLACEHOLDER = re.compile(rf"\\?<({'|'.join(MEDIA)})>")
MOST_TURNS = 1000
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        parts: (modality, text or file) in order; of what is not read from a file, grids.
        learned: whether it is an answer to be learned.
    """

    role: str
    parts: tuple[tuple, ...]
    learned: bool = False


@dataclass(frozen=True)
class Conversation:
    """Turns in order.

    Attributes:
        place: the file and the line or entry, for errors.
        turns: at least one of them learned.
    """

    place: str
    turns: tuple[Turn, ...]

    @property
    def media(self) -> list[tuple[str, Path]]:
        """(modality, file) in order."""
        return [part for turn in self.turns for part in turn.parts if part[0] != TEXT]


@dataclass(frozen=True)
class Source:
    """What rows are read against.

    Attributes:
        folder: of the media.
        modalities: the grid modalities that may come.
        questions: modality -> language -> what is asked where a format has captions alone.
        split: which rows are wanted, where a format knows splits.
    """

    folder: MediaFolder
    modalities: tuple[str, ...]
    questions: dict[str, dict[str, str]]
    split: str = "train"


@dataclass
class Draft:
    """A turn whose media are not yet filled in: a part is (modality, None) for a placeholder."""

    role: str
    parts: list[tuple]
    learned: bool


def split_placeholders(text: str) -> list[tuple]:
    """Text -> parts, in order."""
    parts, start, said = [], 0, ""
    for match in PLACEHOLDER.finditer(text):
        said += text[start : match.start()]
        start = match.end()
        if match[0].startswith("\\"):
            said += match[0][1:]
        else:
            parts += [(TEXT, said), (match[1], None)]
            said = ""
    return [*parts, (TEXT, said + text[start:])]


def listed(row: dict, column: str) -> list:
    """A row's turns as they stand in a column.

    Raises:
        ConversationError: there is no list, or tools are to be called.
    """
    if not isinstance(row.get(column), list):
        raise ConversationError(f"{column!r} must be a list")
    if row.get("tools"):
        raise ConversationError("'tools' are not read")
    return row[column]


def draft(role: str, text, learned: bool, what: str) -> Draft:
    """A turn of a text with placeholders.

    Raises:
        ConversationError: the text is none.
    """
    if not isinstance(text, str):
        raise ConversationError(f"{what} must be a string")
    return Draft(role, split_placeholders(text), learned)


def fill(drafts: list[Draft], row: dict, source: Source) -> tuple[Turn, ...]:
    """Put the row's media in their places.

    Raises:
        ConversationError: placeholders and media differ in number, a modality is not the model's,
            or there is no answer to learn. ManifestError: a path is wrong.
    """
    if len(drafts) > MOST_TURNS:
        raise ConversationError(f"more than {MOST_TURNS} turns")
    files = {name: _column(row, name) for name in MEDIA}
    for name, (key, values) in files.items():
        asked = sum(part == (name, None) for one in drafts for part in one.parts)
        if asked != len(values):
            hint = f"; a \\<{name}> is the word itself" if asked > len(values) else ""
            raise ConversationError(f"{asked} <{name}> in the text, {len(values)} in {key!r}{hint}")
    left = {name: iter(values) for name, (_, values) in files.items()}
    turns = []
    for number, one in enumerate(drafts, start=1):
        parts: list[tuple] = []
        for modality, value in one.parts:
            if modality != TEXT:
                key = files[modality][0]
                value = next(left[modality]) if value is None else value
                parts.append((modality, _path(modality, value, key, source)))
            elif parts and parts[-1][0] == TEXT:
                parts[-1] = TEXT, parts[-1][1] + value
            elif value:
                parts.append((TEXT, value))
        turns.append(Turn(one.role, tuple(parts), one.learned))
        _check(turns[-1], number)
    if not any(turn.learned for turn in turns):
        raise ConversationError("holds no answer to learn")
    return tuple(turns)


def _check(turn: Turn, number: int):
    if not turn.learned:
        return
    if turn.role != "assistant":
        raise ConversationError(f"turn {number}: only the assistant's turns can be learned")
    for modality, _ in turn.parts:
        if modality != TEXT:
            what = f"an answer is learned as text alone, and this holds {modality}"
            raise ConversationError(f"turn {number}: {what}")
    if not "".join(text for _, text in turn.parts).strip():
        raise ConversationError(f"turn {number}: the answer is empty")


def _column(row: dict, modality: str) -> tuple[str, list]:
    """The key that the row has the modality's files under, and they."""
    held = [key for key in COLUMNS[modality] if row.get(key) not in (None, [], "")]
    if len(held) > 1:
        raise ConversationError(f"has both {held[0]!r} and {held[1]!r}")
    key = held[0] if held else COLUMNS[modality][0]
    values = row.get(key) or []
    return key, values if isinstance(values, list) else [values]


def _path(modality: str, value, key: str, source: Source) -> Path:
    if modality not in source.modalities:
        known = ", ".join((TEXT, *source.modalities))
        raise ConversationError(f"the model has no {modality}; it has {known}")
    if isinstance(value, dict):
        value = value.get("path") or value.get("url")
    if isinstance(value, str) and re.match(r"(data:|[a-z][a-z0-9+.-]*://)", value, re.I):
        raise ConversationError(f"{key!r}: files are read from the folder, not from {value[:40]!r}")
    return source.folder.path(value, repr(key))
