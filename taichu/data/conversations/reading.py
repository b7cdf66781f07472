"""Files of conversations: which format a file has, and its rows.

A file is JSON lines, or one JSON list, or COCO's one object. Rows that are malformed are named,
FILE:LINE or FILE: entry N, and cost no other.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from taichu.config import nearest
from taichu.data.conversations import (
    alpaca,
    coco_captions,
    manifest_captions,
    messages,
    preferences,
    question_answer,
    sharegpt,
)
from taichu.data.conversations.captions import QUESTIONS
from taichu.data.conversations.conversation import MEDIA, Conversation, Source, Turn
from taichu.data.manifest import MAX_LINE
from taichu.data.media_folder import MediaFolder
from taichu.errors import ConversationError, ManifestError

MOST_BYTES = 1 << 31  # of a file that is one JSON value, and so is read as a whole
LOOKED_AT = 200  # rows by which a format is known
PREFERENCE = "preference"


@dataclass(frozen=True)
class Format:
    """A form of rows.

    Attributes:
        recognise: row -> why it may be of this format, or None.
        read: row -> turns of its conversations.
    """

    recognise: Callable[[dict], str | None]
    read: Callable[[dict, Source], list[tuple[Turn, ...]]]


FORMATS = {
    "messages": Format(messages.recognise, messages.read),
    "llava": Format(sharegpt.recognise_llava, sharegpt.read),
    "sharegpt": Format(sharegpt.recognise, sharegpt.read),
    "alpaca": Format(alpaca.recognise, alpaca.read),
    "coco": Format(coco_captions.recognise, coco_captions.read),
    "question_answer": Format(question_answer.recognise, question_answer.read),
    "manifest": Format(manifest_captions.recognise, manifest_captions.read),
    PREFERENCE: Format(preferences.recognise, preferences.read),
}


def detect_format(path: Path | str) -> tuple[str, str]:
    """The format of a file, by what its first rows hold.

    Returns:
        Its name, and one line that says so and why.

    Raises:
        ConversationError: the file cannot be read, or looks like no format or like several.
    """
    return _detect(Path(path), islice(_rows(Path(path)), LOOKED_AT))


def read_conversations(
    path: Path | str,
    modalities=MEDIA,
    format: str | None = None,
    folder: Path | str | None = None,
    questions: dict[str, dict[str, str]] | None = None,
    split: str = "train",
    problems: list[str] | None = None,
) -> list[Conversation]:
    """Read every row.

    Args:
        path: the file.
        modalities: the grid modalities that a row may hold.
        format: one of `FORMATS`; None: by what the file holds.
        folder: that media are relative to and inside of; None: the file's own.
        questions: modality -> language -> question, for captions; of a modality that is not named
            the question is ours (`QUESTIONS`).
        split: of a manifest.
        problems: where given, each malformed row adds one line to it and is left out; otherwise
            the first one raises.

    Raises:
        ConversationError: the file cannot be read, is of another format or holds preferences, or a
            row is malformed.
    """
    path = Path(path)
    rows = _rows(path)
    if format is None:
        first = list(islice(rows, LOOKED_AT))
        format, _ = _detect(path, first)
        rows = chain(first, rows)
    elif format not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConversationError(f"format {format!r} is none of {known}{nearest(format, FORMATS)}")
    if format == PREFERENCE:
        raise ConversationError(
            f"{path}: holds preferences, a chosen and a rejected answer a row, and not "
            "conversations; `taichu train tune_preference` learns from them"
        )
    asked = QUESTIONS | _checked(questions or {})
    source = Source(_folder(path, folder), tuple(modalities), asked, split)
    return _read(path, rows, format, source, problems)


def read_preferences(
    path: Path | str,
    modalities=MEDIA,
    folder: Path | str | None = None,
    problems: list[str] | None = None,
) -> list[Conversation]:
    """Read every row of a file of preferences (`taichu.data.conversations.preferences`).

    Args:
        path, modalities, folder, problems: as of `read_conversations`.

    Returns:
        Of each row the conversation with the chosen answer, and behind it the same with the
        rejected one.

    Raises:
        ConversationError: the file cannot be read or is of another format, or a row is malformed.
    """
    path = Path(path)
    rows = _rows(path)
    first = list(islice(rows, LOOKED_AT))
    if not any(isinstance(row, dict) and preferences.recognise(row) for _, row in first):
        raise ConversationError(f"{path}: holds no preferences: {preferences.HINT}")
    source = Source(_folder(path, folder), tuple(modalities), QUESTIONS)
    return _read(path, chain(first, rows), PREFERENCE, source, problems)


def _folder(path: Path, folder: Path | str | None) -> MediaFolder:
    root = Path(folder) if folder else path.parent
    return MediaFolder(root, f"the folder {root}")


def _read(path: Path, rows: Iterable, format: str, source: Source, problems: list[str] | None):
    """Conversations of all rows, in order."""
    found = []
    for place, row in _entries(path, rows, format):
        try:
            if isinstance(row, ConversationError):
                raise row
            if not isinstance(row, dict):
                raise ConversationError("not a JSON object")
            found += [Conversation(place, turns) for turns in FORMATS[format].read(row, source)]
        except (ConversationError, ManifestError) as error:
            if problems is None:
                raise ConversationError(f"{place}: {error}") from None
            problems.append(f"{place}: {error}")
    return found


def _checked(questions: dict) -> dict[str, dict[str, str]]:
    for modality, asked in questions.items():
        if modality not in MEDIA:
            hint = nearest(modality, MEDIA)
            raise ConversationError(f"questions.{modality}: is none of {', '.join(MEDIA)}{hint}")
        texts = list(asked.values()) if isinstance(asked, dict) else []
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ConversationError(f"questions.{modality}: must hold a question a language")
    return questions


def _entries(path: Path, rows: Iterable, format: str) -> Iterator[tuple[str, object]]:
    """(place, row) as the format counts them."""
    if format != "coco":
        yield from rows
        return
    for place, row in rows:
        if not isinstance(row, dict) or not coco_captions.recognise(row):
            raise ConversationError(f"{place}: 'images' and 'annotations' must be lists")
        for part, annotation in coco_captions.expand(row):
            yield f"{path}: {part}", annotation


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """(place, what stands there) of each line or entry; an error where it is no JSON."""
    try:
        if path.suffix.lower() not in (".jsonl", ".ndjson"):
            content = _whole(path)
            if content is not None:
                rows = content if isinstance(content, list) else [content]
                yield from ((f"{path}: entry {n}", row) for n, row in enumerate(rows, start=1))
                return
        with path.open(encoding="utf-8-sig") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    while line and not line.endswith("\n"):
                        line = lines.readline(MAX_LINE)
                    reason = f"the line is longer than {MAX_LINE} characters"
                    yield f"{path}:{number}", ConversationError(reason)
                elif line.strip():
                    yield f"{path}:{number}", _parse(line)
    except FileNotFoundError:
        raise ConversationError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConversationError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConversationError(f"{path}: {error.strerror}") from None


def _whole(path: Path):
    """A file's one JSON value; None where it is JSON lines."""
    if path.stat().st_size > MOST_BYTES:
        raise ConversationError(f"{path}: larger than {MOST_BYTES:,} bytes; JSON lines may be")
    with path.open(encoding="utf-8-sig") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                return None
            at = f"line {error.lineno}, column {error.colno}"
            raise ConversationError(f"{path}: not JSON: {error.msg} at {at}") from None
        except RecursionError:
            raise ConversationError(f"{path}: not JSON: nested too deep") from None


def _parse(line: str):
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return ConversationError("not a JSON object")


def _detect(path: Path, rows: Iterable[tuple[str, object]]) -> tuple[str, str]:
    """The format that every row looks like, of those that look like any."""
    possible: dict[str, str] = {}
    left = None  # names that all rows so far allow
    for place, row in rows:
        if not isinstance(row, dict):
            continue
        why = {name: reason for name, f in FORMATS.items() if (reason := f.recognise(row))}
        if PREFERENCE in why:  # has a prompt of another format
            why = {PREFERENCE: why[PREFERENCE]}
        if "llava" in why:  # is ShareGPT's too, and read alike
            del why["sharegpt"]
        if len(why) > 1:  # an id and an image are no more a manifest's than others'
            why.pop("manifest", None)
        for name, reason in why.items():
            possible.setdefault(name, f"{place.removeprefix(str(path)).strip(': ')} {reason}")
        if why:
            left = set(why) if left is None else left & set(why)
    if "llava" in possible and set(possible) <= {"llava", "sharegpt"}:
        left = {"llava"}  # rows without media among the others
    if not possible:
        known = ", ".join(FORMATS)
        raise ConversationError(f"{path}: looks like none of the formats {known}")
    if not left or len(left) > 1:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in possible.items())
        raise ConversationError(f"{path}: looks like {reasons}; name its format")
    (name,) = left
    return name, f"{path}: {name}: {possible[name]}"
