"""Alpaca's ``instruction``, ``input`` and ``output``; with ``system``, ``history`` and media too.

{"instruction": "Say it in Chinese.", "input": "a red seven", "output": "红色的七"}
"""

from taichu.data.conversations.conversation import Draft, Source, Turn, draft, fill
from taichu.errors import ConversationError


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    return "has 'instruction' and 'output'" if {"instruction", "output"} <= row.keys() else None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    drafts = read_prompt(row)
    drafts.append(draft("assistant", row.get("output"), True, "'output'"))
    return [fill(drafts, row, source)]


def read_prompt(row: dict) -> list[Draft]:
    """The turns before the answer.

    Raises:
        ConversationError: they are malformed.
    """
    drafts = []
    if row.get("system"):
        drafts.append(draft("system", row["system"], False, "'system'"))
    history = row.get("history") or []
    if not isinstance(history, list):
        raise ConversationError("'history' must be a list of [instruction, answer]")
    for number, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ConversationError(f"history[{number}] must be [instruction, answer]")
        drafts.append(draft("user", pair[0], False, f"history[{number}][0]"))
        drafts.append(draft("assistant", pair[1], True, f"history[{number}][1]"))
    asked, more = row.get("instruction"), row.get("input") or ""
    for key, value in (("instruction", asked), ("input", more)):
        if not isinstance(value, str):
            raise ConversationError(f"{key!r} must be a string")
    together = "\n".join(text for text in (asked, more) if text)
    drafts.append(draft("user", together, False, "'instruction'"))
    return drafts
