"""Conversations at inference: messages -> turns -> what a model goes on from."""

from dataclasses import replace

from taichu.data.conversations.conversation import Turn
from taichu.data.conversations.messages import read_message
from taichu.data.conversations.template import ChatTemplate
from taichu.data.conversations.tokens import Opening, open_answer
from taichu.errors import ConversationError, GenerationError
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT


def read_messages(messages: list[dict], adapters: dict) -> tuple[Turn, ...]:
    """Turns of messages, their files read.

    Raises:
        GenerationError: a message is malformed. MediaError: a file cannot be read.
    """
    turns = []
    for number, message in enumerate(messages):
        what, content = f"messages[{number}]", None
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            # a placeholder in a string would have no file
            content = [{"type": TEXT, TEXT: message["content"]}]
            message = {**message, "content": content}
        try:
            draft = read_message(message, what)
        except ConversationError as error:
            raise GenerationError(str(error)) from None
        turns.append(Turn(draft.role, tuple(_read(part, what, adapters) for part in draft.parts)))
    return tuple(turns)


def open_chat(model, turns: tuple[Turn, ...]) -> Opening:
    """What a model goes on from, by its template; media are grids.

    Raises:
        GenerationError: it has none. TemplateError: the template refuses the turns.
    """
    if model.template is None:
        raise GenerationError("this model has no chat template; it was not tuned on conversations")
    rendered = model.template.open(turns)
    seen = [part for turn in turns for part in turn.parts if part[0] != TEXT]
    return open_answer(rendered, list(model.observe(seen)), model.template, model.vocabulary)


def until_turn_ends(sampling: Sampling, template: ChatTemplate) -> Sampling:
    """A sampling that also stops where the template's end-of-turn is spelled out."""
    return replace(sampling, stop=(*sampling.stop, template.end)) if template.end else sampling


def _read(part: tuple, what: str, adapters: dict) -> tuple:
    modality, value = part
    if modality == TEXT:
        return part
    if modality not in adapters:
        known = ", ".join((TEXT, *adapters))
        raise GenerationError(f"this model has no modality {modality!r}; it has {known}")
    if value is None:
        raise GenerationError(f"{what}: the path of the {modality} is missing")
    return modality, adapters[modality].read(value)
