"""``conversations`` of ``from`` and ``value``: ShareGPT's, and LLaVA's, whose media are ``image``.

{"id": "1", "image": "7.png", "conversations": [
    {"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A seven."}]}
"""

from taichu.data.conversations.conversation import MEDIA, Draft, Source, Turn, draft, fill, listed
from taichu.errors import ConversationError

ROLES = {"human": "user", "user": "user", "system": "system"}
ROLES |= dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "assistant")
ROLES |= dict.fromkeys(("tool", "observation", "function_response"), "tool")


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    return "has 'conversations'" if isinstance(row.get("conversations"), list) else None


def recognise_llava(row: dict) -> str | None:
    """LLaVA's: the same with one column a modality, named in the singular."""
    column = next((name for name in MEDIA if name in row), None)
    return f"has 'conversations' and {column!r}" if recognise(row) and column else None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    return [fill(read_turns(row), row, source)]


def read_turns(row: dict) -> list[Draft]:
    """The turns in ``conversations``, ``system`` before them.

    Raises:
        ConversationError: they are malformed.
    """
    said = listed(row, "conversations")
    drafts = [read_turn(turn, f"conversations[{i}]") for i, turn in enumerate(said)]
    if row.get("system"):
        drafts.insert(0, draft("system", row["system"], False, "'system'"))
    return drafts


def read_turn(turn, what: str) -> Draft:
    """The turn of ``from`` and ``value``.

    Args:
        what: it is called in errors.

    Raises:
        ConversationError: it is malformed.
    """
    speaker = turn.get("from") if isinstance(turn, dict) else None
    if not isinstance(speaker, str):
        raise ConversationError(f"{what} must be an object with 'from' and 'value'")
    if speaker not in ROLES:
        raise ConversationError(f"{what}: 'from' is {speaker!r}, and none of {', '.join(ROLES)}")
    role = ROLES[speaker]
    loss = turn.get("loss")
    if loss not in (None, 0, 1):
        raise ConversationError(f"{what}: 'loss' must be true or false, not {loss!r}")
    learned = role == "assistant" if loss is None else bool(loss)
    return draft(role, turn.get("value"), learned, f"{what}.value")
