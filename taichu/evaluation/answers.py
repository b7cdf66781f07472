"""Questions of conversations, put to a model one after the other; its answers are counted."""

from collections import defaultdict

from taichu.data.conversations.conversation import Conversation, Turn
from taichu.inference.chat import open_chat, until_turn_ends
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT


def answers(model, conversations: list[Conversation], sampling: Sampling) -> dict:
    """Share of the answers that are those of the conversations, but for case and outer space.

    Each question comes after the model's own answers to those before it, right or wrong.

    Args:
        model: a `taichu.inference.unified_model.UnifiedModel` with a chat template.
        conversations: what is asked, and what should be answered.
        sampling: of the answers.

    Returns:
        By the modality that comes first in a conversation, and of "all": ``right``, the share of
        right ones, ``conversations``, the share of those with no wrong answer, and ``n`` answers.

    Raises:
        GenerationError: the model has no template. TemplateError: it refuses a conversation.
        MediaError: a file cannot be read.
    """
    sampling = until_turn_ends(sampling, model.template) if model.template else sampling
    said: list[list[Turn]] = [[] for _ in conversations]
    right: list[list[bool]] = [[] for _ in conversations]
    for number in range(max(len(one.turns) for one in conversations)):
        asked = []
        for i, one in enumerate(conversations):
            turn = one.turns[number] if number < len(one.turns) else None
            if turn is not None and turn.learned:
                asked.append(i)
            elif turn is not None:
                said[i].append(Turn(turn.role, tuple(_read(model, part) for part in turn.parts)))
        openings = [open_chat(model, tuple(said[i])) for i in asked]
        for i, made in zip(asked, generate(model, TEXT, openings, sampling) if asked else ()):
            said[i].append(Turn("assistant", ((TEXT, made.text),)))
            wanted = "".join(text for _, text in conversations[i].turns[number].parts)
            right[i].append(_plain(made.text) == _plain(wanted))
    found = defaultdict(list)
    for one, marks in zip(conversations, right):
        found[next((modality for modality, _ in one.media), TEXT)].append(marks)
    return {name: _score(marks) for name, marks in {**found, "all": right}.items()}


def _score(marks: list[list[bool]]) -> dict:
    every = [mark for one in marks for mark in one]
    return {
        "right": sum(every) / len(every),
        "conversations": sum(map(all, marks)) / len(marks),
        "n": len(every),
    }


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _read(model, part: tuple) -> tuple:
    modality, value = part
    return part if modality == TEXT else (modality, model.adapters[modality].read(value))
