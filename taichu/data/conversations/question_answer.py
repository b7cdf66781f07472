"""Visual question answering, and of any other medium: a file, a ``question`` and its ``answer``.

    {"image": "7.png", "question": "Which digit?", "answer": "seven"}

Of a list of ``answers`` the one that most have given is learned.
"""

from collections import Counter

from taichu.data.conversations.captions import exchange
from taichu.data.conversations.conversation import COLUMNS, Source, Turn
from taichu.errors import ConversationError


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    key = next((key for key in ("answer", "answers") if key in row), None)
    return f"has 'question' and {key!r}" if "question" in row and key else None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    answer = row.get("answer", row.get("answers"))
    if isinstance(answer, list) and answer:
        given = [one.get("answer") if isinstance(one, dict) else one for one in answer]
        if all(isinstance(one, str) for one in given):
            answer = Counter(given).most_common(1)[0][0]  # the first of equals
    for key, value in (("question", row.get("question")), ("answer", answer)):
        if not isinstance(value, str) or not value.strip():
            raise ConversationError(f"{key!r} must be a string that is not empty")
    held = {key: m for m, keys in COLUMNS.items() for key in keys if row.get(key)}
    if len(held) > 1:
        keys = ", ".join(map(repr, held))
        raise ConversationError(f"a question is about one file, and there are {keys}")
    modality = next(iter(held.values()), None)
    return [exchange(modality, row["question"], answer, row, source)]
