"""Answers to conversations: the form of training, and where they end."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from taichu import Sampling, Taichu
from taichu.data.conversations.conversation import Turn
from taichu.data.conversations.template import DEFAULT, ChatTemplate, read_template
from taichu.data.conversations.tokens import Medium, to_segment, to_spans
from taichu.data.layout import Span
from taichu.data.packing import pack_rows
from taichu.errors import GenerationError, TemplateError
from taichu.inference.chat import open_chat, read_messages

# ends an answer with text that the tokenizer spells in several pieces
MARKED = (
    "{% for m in messages %}{{ m.role + ':\n' + m.content + '##\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)


@pytest.fixture(params=[DEFAULT, MARKED], ids=["default", "marked"])
def chatty(tiny, request):
    tiny.template = ChatTemplate(request.param)
    yield tiny
    tiny.template = None


@pytest.fixture(scope="module")
def picture(tiny, contents, tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "a.png"
    return tiny.adapters["image"].write(contents["image"], path)


def ask(picture) -> list[dict]:
    parts = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "a red?"}]
    return [
        {"role": "system", "content": "left"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "seven"},
        {"role": "user", "content": "blue?"},
    ]


def most_likely(model, turns, said: list[int]) -> int:
    """The next id by a whole reading of what training lays out, of those that text may be."""
    template = model.template
    answered = (*turns, Turn("assistant", (("text", "x"),), True))
    media = [p for t in turns for p in t.parts if p[0] != "text"]
    seen = [replace(span, given=True) for span in model.observe(media)]
    spans = to_spans(template.render(answered), template, model.vocabulary)
    given = spans[: max(i for i, span in enumerate(spans) if not getattr(span, "given", True))]
    if not template.end:
        said = [model.vocabulary.open("text"), *said]
    given.append(Span("text", ids=np.array(said, np.int32), given=True, bare=True))
    given = [seen[s.number] if isinstance(s, Medium) else s for s in given]
    segment = to_segment(given)
    batch = pack_rows([segment], len(segment), model.vocabulary, model.grids)
    hidden = model.backbone(*map(ms.Tensor, (*batch.planes, *batch.patches)))
    logits = model.backbone.decode(hidden).asnumpy()[-1]
    return int(logits[: model.vocabulary.pieces + (not template.end)].argmax())


def test_an_answer_is_what_a_whole_reading_finds_likeliest(chatty, picture):
    turns = read_messages(ask(picture), chatty.adapters)
    said = []
    for _ in range(4):
        said.append(most_likely(chatty, turns, said))
    text = chatty.chat(ask(picture), Sampling(pieces=4))
    assert text == chatty.vocabulary.decode(said)
    assert said[0] != chatty.vocabulary.close("text")


def test_an_answer_ends_where_the_template_ends_it(chatty, picture, monkeypatch):
    opening = open_chat(chatty, read_messages(ask(picture), chatty.adapters))
    words, vocabulary = chatty.vocabulary.encode("a red"), chatty.vocabulary
    end = list(opening.end) or [vocabulary.close("text")]
    assert (len(end) > 1) == (chatty.template.end == "##")
    script, fed = iter([*words, *end, *words]), []

    def start_reading(batch, rows, tokens):
        def next_logits(ids, coords, made):
            fed.append(int(ids[0]))
            logits = np.zeros((1, vocabulary.size), np.float32)
            logits[0, next(script)] = 1
            return logits

        return next_logits

    monkeypatch.setattr(chatty, "start_reading", start_reading)
    assert chatty.chat(ask(picture), Sampling(pieces=20)) == "a red"
    first = vocabulary.open("text") if opening.token is None else opening.token
    assert fed == [first, *words, *end[:-1]]


def test_a_folder_keeps_its_template(chatty, tmp_path):
    chatty.save_pretrained(tmp_path)
    loaded = Taichu.from_pretrained(tmp_path)
    assert loaded.template == chatty.template == read_template(tmp_path)
    messages = [{"role": "user", "content": "a red"}]
    settings = Sampling(pieces=3)
    assert loaded.chat(messages, settings) == chatty.chat(messages, settings)


@pytest.mark.parametrize(
    "message, reason",
    [
        ({"role": "user"}, "messages[0].content must be a string"),
        ({"content": "x"}, "messages[0] must be an object with 'role' and 'content'"),
        (
            {"role": "user", "content": [{"type": "smell", "smell": "x"}]},
            "messages[0].content[0].type must be one of text, ",
        ),
        ({"role": "user", "content": [{"type": "image"}]}, "messages[0]: the path of the image is"),
    ],
)
def test_malformed_messages(chatty, message, reason):
    with pytest.raises(GenerationError) as caught:
        chatty.chat([message])
    assert str(caught.value).startswith(reason)


def test_placeholders_in_a_string_are_words(chatty):
    (turn,) = read_messages([{"role": "user", "content": "an <image>?"}], chatty.adapters)
    assert turn.parts == (("text", "an <image>?"),)
    with pytest.raises(TemplateError, match="U\\+FDD0"):
        chatty.chat([{"role": "user", "content": "\ufdd0"}])


def test_a_model_without_a_template(tiny):
    with pytest.raises(GenerationError, match="this model has no chat template"):
        tiny.chat([{"role": "user", "content": "x"}])
