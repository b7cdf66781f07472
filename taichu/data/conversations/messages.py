"""``messages`` of ``role`` and ``content``, as OpenAI, ms-swift and others have them.

    {"messages": [{"role": "user", "content": "<image>What is this?"},
                  {"role": "assistant", "content": "A seven."}], "images": ["7.png"]}

A content may also be a list of parts, ``{"type": "image", "image": "7.png"}`` or with the path left
to the column, and ``image_url`` with its object. A message's ``loss`` says whether it is learned;
without it the assistant's are.
"""

from taichu.data.conversations.conversation import (
    MEDIA,
    ROLES,
    Draft,
    Source,
    Turn,
    draft,
    fill,
    listed,
)
from taichu.errors import ConversationError
from taichu.vocabulary import TEXT

SAME_ROLE = {"developer": "system"}


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    return "has 'messages'" if isinstance(row.get("messages"), list) else None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns.

    Raises:
        ConversationError, ManifestError: it is malformed.
    """
    return [fill(read_messages(row, "messages"), row, source)]


def read_messages(row: dict, column: str) -> list[Draft]:
    """The turns in a row's column.

    Raises:
        ConversationError: they are malformed.
    """
    said = listed(row, column)
    return [read_message(message, f"{column}[{i}]") for i, message in enumerate(said)]


def read_message(message, what: str) -> Draft:
    """A message's turn.

    Args:
        what: it is called in errors.

    Raises:
        ConversationError: it is malformed.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ConversationError(f"{what} must be an object with 'role' and 'content'")
    if message.get("tool_calls"):
        raise ConversationError(f"{what}: 'tool_calls' are not read")
    role = SAME_ROLE.get(message["role"], message["role"])
    if role not in ROLES:
        raise ConversationError(f"{what}: role {role!r} is none of {', '.join(ROLES)}")
    loss = message.get("loss")
    if loss not in (None, 0, 1):
        raise ConversationError(f"{what}: 'loss' must be true or false, not {loss!r}")
    learned = role == "assistant" if loss is None else bool(loss)
    content = message.get("content")
    if not isinstance(content, list):
        return draft(role, content, learned, f"{what}.content")
    parts = [_part(part, f"{what}.content[{i}]") for i, part in enumerate(content)]
    return Draft(role, parts, learned)


def _part(part, what: str) -> tuple:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == TEXT:
        if not isinstance(part.get(TEXT), str):
            raise ConversationError(f"{what}.text must be a string")
        return TEXT, part[TEXT]
    for modality in MEDIA:
        if kind in (modality, f"{modality}_url"):
            return modality, part.get(kind) or part.get("path") or part.get("url")
    known = ", ".join((TEXT, *(name for m in MEDIA for name in (m, f"{m}_url"))))
    raise ConversationError(f"{what}.type must be one of {known}, not {kind!r}")
