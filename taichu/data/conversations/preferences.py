"""Preferences: a prompt and two answers to it, one chosen and one rejected.

    {"prompt": [{"role": "user", "content": "<image>What is this?"}], "images": ["7.png"],
     "chosen": [{"role": "assistant", "content": "A seven."}],
     "rejected": [{"role": "assistant", "content": "A one."}]}

This is TRL's form; there all three may also be strings, or ``chosen`` and ``rejected`` whole
conversations, whose common beginning is the prompt, whether or not there is a ``prompt`` beside
them. In LLaMA-Factory's the prompt is ShareGPT's ``conversations`` or Alpaca's ``instruction``, and
``chosen`` and ``rejected`` are a message or a string each. In ms-swift's ``messages`` end with the
chosen answer, and ``rejected_response`` is a string.
"""

from taichu.data.conversations.alpaca import read_prompt
from taichu.data.conversations.conversation import Draft, Source, Turn, draft, fill
from taichu.data.conversations.messages import read_message, read_messages
from taichu.data.conversations.sharegpt import read_turn, read_turns
from taichu.errors import ConversationError

HINT = "their rows have 'chosen' and 'rejected', or 'messages' and 'rejected_response'"


def recognise(row: dict) -> str | None:
    """Why a row may be of this format."""
    for keys in (("chosen", "rejected"), ("messages", "rejected_response")):
        if set(keys) <= row.keys():
            return f"has {keys[0]!r} and {keys[1]!r}"
    return None


def read(row: dict, source: Source) -> list[tuple[Turn, ...]]:
    """A row's turns with the chosen answer, and with the rejected one; of both the prompt is equal,
    and the answers alone are learned.

    Raises:
        ConversationError, ManifestError: it is malformed, the answers are equal, or they are not of
            one prompt.
    """
    prompt, chosen, rejected = _split(row)
    if _said(chosen) == _said(rejected):
        raise ConversationError("the chosen and the rejected answer are equal")
    if not prompt or prompt[-1].role == "assistant":
        raise ConversationError("the prompt must end with what is to be answered")
    for one in prompt:
        one.learned = False
    return [fill([*prompt, *answer], row, source) for answer in (chosen, rejected)]


def _split(row: dict) -> tuple[list[Draft], list[Draft], list[Draft]]:
    """Turns of the prompt, of the chosen and of the rejected answer."""
    if "rejected_response" in row and "chosen" not in row:
        said = read_messages(row, "messages")
        if not said or said[-1].role != "assistant":
            raise ConversationError("'messages' must end with the chosen answer")
        rejected = draft("assistant", row["rejected_response"], True, "'rejected_response'")
        return said[:-1], said[-1:], [rejected]
    chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
    if chosen[0].role == rejected[0].role == "assistant":
        return _prompt(row), chosen, rejected
    alike = [
        one.role == other.role and one.parts == other.parts for one, other in zip(chosen, rejected)
    ]
    same = [*alike, False].index(False)
    rest = chosen[same:], rejected[same:]
    if any(answer and answer[0].role != "assistant" for answer in rest):
        raise ConversationError("the prompts of 'chosen' and 'rejected' differ")
    return chosen[:same], *rest


def _answer(row: dict, key: str) -> list[Draft]:
    value = row.get(key)
    if isinstance(value, str):
        return [draft("assistant", value, True, repr(key))]
    if isinstance(value, dict):
        return [_message(value, key)]
    if not isinstance(value, list) or not value:
        raise ConversationError(f"{key!r} must be a string, a message or a list of messages")
    return [_message(message, f"{key}[{i}]") for i, message in enumerate(value)]


def _message(message, what: str) -> Draft:
    by_sharegpt = isinstance(message, dict) and "from" in message
    return read_turn(message, what) if by_sharegpt else read_message(message, what)


def _prompt(row: dict) -> list[Draft]:
    if isinstance(row.get("prompt"), str):
        return [draft("user", row["prompt"], False, "'prompt'")]
    for column in ("prompt", "messages"):
        if column in row:
            return read_messages(row, column)
    if "conversations" in row:
        return read_turns(row)
    if "instruction" in row:
        return read_prompt(row)
    raise ConversationError("'prompt' is missing")


def _said(answer: list[Draft]) -> list[tuple]:
    """What is told apart: who says what, spaces around it aside."""
    return [
        (one.role, [(kind, value and str(value).strip()) for kind, value in one.parts])
        for one in answer
    ]
