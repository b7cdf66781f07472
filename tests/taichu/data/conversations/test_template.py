"""Templates write what `transformers` writes, and the answers in it are found."""

import json

import pytest

from taichu.data.conversations.conversation import Turn
from taichu.data.conversations.template import (
    DEFAULT,
    ChatTemplate,
    read_template,
    write_template,
)
from taichu.errors import CheckpointError, TemplateError
from tests.taichu.data.conversations.conftest import CHATML, PUBLISHED, QWEN3, SPECIAL, talk

TALKS = [
    talk("What do you see?", "A red seven."),
    talk("  What?\n", " A seven. ", "你好 {{ x }}", "七 </b> <think>", "Why?", "Because:\n\nb"),
    talk("a", "<think>\nhm\n</think>\n\nb", "c", "<think>\nso\n</think>\n\nd"),
    talk("a", "b", "c", "d", system="Be brief."),
    talk("a", "a", "a", "a"),
]
END = {"llama3": "<|eot_id|>", "chatml": "<|im_end|>", "qwen3": "<|im_end|>"}
END |= {"mistral": "</s>", "phi3": "<|end|>"}


def plain(turns) -> list[dict]:
    return [{"role": t.role, "content": "".join(v for _, v in t.parts)} for t in turns]


@pytest.fixture(scope="module")
def peer(published_tokenizer):
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=published_tokenizer, **SPECIAL)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("number", range(len(TALKS)))
def test_text_is_that_of_transformers(peer, name, number):
    turns, template = TALKS[number], ChatTemplate(PUBLISHED[name], SPECIAL)
    if name == "mistral" and turns[0].role == "system":
        with pytest.raises(TemplateError, match="template: Conversation roles must alternate"):
            template.render(turns)
        return

    def theirs(turns, **settings):
        settings |= {"chat_template": PUBLISHED[name], "tokenize": False}
        return peer.apply_chat_template(plain(turns), **settings)

    assert template.render(turns).text == theirs(turns)
    assert template.open(turns[:-1]).text == theirs(turns[:-1], add_generation_prompt=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_answers_are_found(name):
    template = ChatTemplate(PUBLISHED[name], SPECIAL)
    assert template.end == END[name]
    for turns in TALKS[:3] + TALKS[4:]:
        rendered = template.render(turns)
        found = [rendered.text[a:b] for a, b, _ in rendered.answers]
        wanted = [t.parts[0][1] for t in turns if t.learned]
        assert len(found) == len(wanted)
        for i, (one, text) in enumerate(zip(found, wanted)):
            text = {"llama3": text.strip(), "mistral": f" {text}"}.get(name, text)
            if name == "qwen3":  # the last answer's thoughts are written, and earlier ones' not
                thought, _, said = text.rpartition("</think>")
                thought = thought.replace("<think>", "").strip()
                last = i == len(wanted) - 1
                text = said.lstrip("\n") if thought or last else text
                text = f"<think>\n{thought}\n</think>\n\n{text}" if last else text
            assert one == text + END[name]
        # what training gives before the first answer is what generation begins with
        first = next(i for i, turn in enumerate(turns) if turn.learned)
        assert template.open(turns[:first]).text == rendered.text[: rendered.answers[0][0]]


@pytest.mark.parametrize("name", ["llama3", "chatml", "qwen3"])
def test_only_learned_answers_are_found(name):
    turns = list(talk("a", "b", "c", "d", "e", "f"))
    turns[3] = Turn("assistant", turns[3].parts, False)
    rendered = ChatTemplate(PUBLISHED[name], SPECIAL).render(tuple(turns))
    found = [(rendered.text[a:b].removesuffix(END[name])[-1], on) for a, b, on in rendered.answers]
    assert found == [("b", True), ("d", False), ("f", True)]


def test_the_default():
    template = ChatTemplate(DEFAULT)
    rendered = template.render(talk("a", "b", "c", "d", system="s"))
    assert rendered.text == "system: s\nuser: a\nbuser: c\nd"
    assert [rendered.text[a:b] for a, b, _ in rendered.answers] == ["b", "d"]
    assert template.end == ""
    assert template.open(talk("a")).text == "user: a\n"


def test_media_stand_in_their_places():
    turns = talk((("image", 1), ("text", "and"), ("audio", 2), ("image", 3)), "b", (("image", 4),))
    for source in (DEFAULT, *PUBLISHED.values()):
        text = ChatTemplate(source, SPECIAL).render((*turns, *talk("", "c")[1:])).text
        assert "\ufdd00\ufdd1and\ufdd01\ufdd1\ufdd02\ufdd1" in text and "\ufdd03\ufdd1" in text


BAD = [
    ("{% for m in messages %}", "not a Jinja template: Unexpected end of template"),
    ("hello", "does not write a question and its answer"),
    ("{{ messages.x.y }}", "'list object' has no attribute 'x'"),
    ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
    ("{{ 1 // 0 }}", "integer division or modulo by zero"),
    ("{{ [1] * 3 + 'a' }}", "can only concatenate list"),
    ("{{ {}[[]] }}{{ [].sort(key=1) }}", "access to attribute 'sort'"),
    ("{{ lipsum.x.y() }}", "has no attribute 'x'"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
    ("{% include '/etc/passwd' %}", "no loader for this environment"),
    ("{% for i in range(10000000) %}{% endfor %}", "Range too big"),
]


@pytest.mark.parametrize("source, reason", BAD)
def test_bad_templates(source, reason):
    with pytest.raises(TemplateError, match="^x.jinja: ") as caught:
        ChatTemplate(source, name="x.jinja")
    assert reason in str(caught.value)


EVERY = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
UNFIT = [
    (  # earlier turns hold how many there are
        "{{ messages|length }}" + EVERY,
        talk("a", "b", "c", "d"),
        "x: what it writes before turn 2 changes with later turns",
    ),
    (  # an answer is lost
        "{% for m in messages[-2:] %}{{ m.role }}:{{ m.content }};{% endfor %}",
        talk("a", "b", "c", "d"),
        "x: writes 1 of 2 answers",
    ),
    (
        EVERY.replace(";{% e", "{{ ';' if loop.last or m.role == 'user' else '|' }}{% e"),
        talk("a", "b", "c", "d"),
        "x: turn 2 does not end with ';'",
    ),
    (
        EVERY.replace("m.content", "m.content | upper + m.content"),
        talk("a", "b"),
        "x: writes 2 of 1 answers",
    ),
    (
        EVERY.replace("m.content", "m.content[1:] if m.role == 'user' else m.content"),
        talk((("image", 0), ("text", "q")), "b"),
        "x: does not write each medium once and in order",
    ),
    (
        EVERY.replace("m.content", "m.content | length ~ m.content"),
        talk("q", "b"),
        "x: writes an answer otherwise when a mark follows it",
    ),
    (EVERY, talk("a\ufdd0", "b"), "a text holds one of the code points U+FDD0 to U+FDEF"),
]


@pytest.mark.parametrize("source, turns, reason", UNFIT)
def test_conversations_that_do_not_fit(source, turns, reason):
    if "[1:]" in source:  # else not even the question of the probe would be written
        source = "{{ messages[0].content[:1] }}" + source
    template = ChatTemplate(source, name="x")
    with pytest.raises(TemplateError) as caught:
        template.render(turns)
    assert str(caught.value) == reason


def test_a_tag_for_each_answer():
    source = EVERY.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    template = ChatTemplate(source, name="x")
    turns = talk("a", "b", "c", "d")
    assert len(template.render(turns).answers) == 4  # as it says
    turns = (*turns[:3], Turn("assistant", turns[3].parts, False))
    with pytest.raises(TemplateError, match="x: 4 {% generation %} for 2 answers, of which not"):
        template.render(turns)


def test_a_folder_s_template(tmp_path):
    assert read_template(tmp_path) is None
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": CHATML}
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(settings))
    expected = ChatTemplate(CHATML, SPECIAL)
    assert read_template(tmp_path) == expected
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": QWEN3}]
    path.write_text(json.dumps(settings | {"chat_template": several}))
    assert read_template(tmp_path) == ChatTemplate(QWEN3, SPECIAL)
    write_template(tmp_path, expected)  # comes before what the tokenizer says
    assert read_template(tmp_path) == expected
    path.unlink()
    assert read_template(tmp_path) == expected
    (tmp_path / "chat_template.jinja").write_text("x" * ((1 << 20) + 1))
    with pytest.raises(TemplateError, match="chat_template.jinja: larger than 1,048,576 bytes"):
        read_template(tmp_path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_template(tmp_path)
