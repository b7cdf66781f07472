"""Answers are counted as asking one by one gives them."""

import pytest

from taichu import Sampling
from taichu.data.conversations.conversation import Conversation, Turn
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.errors import GenerationError
from taichu.evaluation.answers import answers


@pytest.fixture
def chatty(tiny):
    tiny.template = ChatTemplate(DEFAULT)
    yield tiny
    tiny.template = None


def conversation(picture, *said: str) -> Conversation:
    """Questions and answers in turn, the first question about a picture, if any."""
    turns = []
    for number, text in enumerate(said):
        parts = (("text", text),)
        if number == 0 and picture:
            parts = (("image", picture), *parts)
        turns.append(Turn(("user", "assistant")[number % 2], parts, bool(number % 2)))
    return Conversation("here", tuple(turns))


def test_each_question_comes_after_the_models_own_answers(chatty, contents, tmp_path):
    picture = chatty.adapters["image"].write(contents["image"], tmp_path / "a.png")
    asked = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "red?"}]
    messages = [{"role": "user", "content": asked}]
    first = chatty.chat(messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "seven?"}]
    second = chatty.chat(messages)
    other = chatty.chat([{"role": "user", "content": "a"}])
    assert first.strip() and second.strip() and other.strip()
    counted = answers(
        chatty,
        [
            conversation(picture, "red?", f" {first.upper()}  ", "seven?", second),
            # wrong at first, and right after what the model itself has said
            conversation(picture, "red?", first + " no", "seven?", second),
            conversation(None, "a", other + " no"),
        ],
        Sampling(temperature=0),
    )
    assert counted == {
        "image": {"right": 0.75, "conversations": 0.5, "n": 4},
        "text": {"right": 0.0, "conversations": 0.0, "n": 1},
        "all": {"right": 0.6, "conversations": pytest.approx(1 / 3), "n": 5},
    }


def test_a_model_without_template_is_refused(tiny):
    with pytest.raises(GenerationError, match="no chat template"):
        answers(tiny, [conversation(None, "a", "b")], Sampling())
