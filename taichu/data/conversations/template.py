"""Chat templates: Jinja as in a published model's ``tokenizer_config.json``.

A template writes a conversation as text. What is needed besides is where in that text the answers
and the media stand. Code points that Unicode keeps for a program's own use (U+FDD0 to U+FDEF) are
put into the messages as marks, found again in what the template has written, and taken out:

    medium n    U+FDD0 n U+FDD1, in place of its placeholder
    answer      U+FDD2 behind the last letter of each of the assistant's messages
    {% generation %} .. {% endgeneration %}    U+FDD3 .. U+FDD4

A template with the generation tag says itself what is learned. Of one without, an answer begins
where the text up to it with ``add_generation_prompt`` ends, and ends with what the template writes
behind it up to the next space, such as ``<|im_end|>``. A template that writes nothing behind an
answer leaves that to the layout: see `taichu.data.conversations.tokens`.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from taichu.data.conversations.conversation import Turn
from taichu.errors import TemplateError
from taichu.storage.model_folder import read_json, write_json
from taichu.vocabulary import TEXT

FILE = "chat_template.jinja"
SPECIAL = "special_tokens_map.json"
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
MOST_BYTES = 1 << 20  # of a template
MOST_JSON = 1 << 26  # of a tokenizer's settings
RESERVED = re.compile("[\ufdd0-\ufdef]")
MEDIUM = re.compile("\ufdd0([0-9]+)\ufdd1")
BEHIND, OPEN, CLOSE = "\ufdd2", "\ufdd3", "\ufdd4"
MARKS = re.compile(f"[{BEHIND}{OPEN}{CLOSE}]")

# of models that know no special tokens: roles are written out, answers are spans of their own
DEFAULT = """\
{% for message in messages %}
{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{% endgeneration %}
{% else %}
{{ message.role }}: {{ message.content + '\\n' }}
{%- endif %}
{% endfor %}
"""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: with ``U+FDD0 n U+FDD1`` where the n-th medium stands.
        answers: (start, end, whether it is learned) of each, in order; the end is behind what ends
            the turn.
    """

    text: str
    answers: tuple[tuple[int, int, bool], ...]


class ChatTemplate:
    """A template.

    Args:
        source: Jinja.
        special: bos_token and the like, as the tokenizer spells them.
        name: of the file, for errors.

    Attributes:
        end: what is written behind an answer, up to the next space; "" where nothing is.

    Raises:
        TemplateError: it is no template, or does not write a question and its answer.
    """

    def __init__(self, source: str, special: dict[str, str] | None = None, name: str = "template"):
        self.source, self.special, self.name = source, dict(special or {}), name
        try:
            self._template = ENVIRONMENT.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"{name}: not a Jinja template: {error}") from None
        probe = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" + BEHIND}]
        before, found, behind = self._write(probe).partition(BEHIND)
        if not found or "q" not in before:
            raise TemplateError(f"{name}: does not write a question and its answer")
        self.end = next(iter(MARKS.sub("", behind).split()), "")

    def __eq__(self, other) -> bool:
        return isinstance(other, ChatTemplate) and (self.source, self.special) == (
            other.source,
            other.special,
        )

    __hash__ = None

    def render(self, turns: tuple[Turn, ...]) -> Rendered:
        """Write a conversation.

        Raises:
            TemplateError: the template refuses it, changes an earlier turn when a later one comes,
                or loses or repeats an answer or a medium.
        """
        return self._render(turns)

    def open(self, turns: tuple[Turn, ...]) -> Rendered:
        """Write the turns so far and what opens the assistant's next; answers are told where they
        are spans of their own.

        Raises:
            TemplateError: see `render`.
        """
        return self._render(turns, opens=True)

    def _render(self, turns: tuple[Turn, ...], opens: bool = False) -> Rendered:
        messages = as_messages(turns)
        wanted = MARKS.sub("", self._write(messages, opens))
        count = sum(modality != TEXT for turn in turns for modality, _ in turn.parts)
        if [int(match[1]) for match in MEDIUM.finditer(wanted)] != list(range(count)):
            raise TemplateError(f"{self.name}: does not write each medium once and in order")
        if opens and self.end:
            return Rendered(wanted, ())  # nobody asks where the earlier answers are
        marked = [
            {**m, "content": _mark(m["content"])} if m["role"] == "assistant" else m
            for m in messages
        ]
        text, places = _take_marks(self._write(marked, opens))
        if text != wanted:
            raise TemplateError(f"{self.name}: writes an answer otherwise when a mark follows it")
        answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
        if len(places[BEHIND]) != len(answers):
            counts = f"{len(places[BEHIND])} of {len(answers)}"
            raise TemplateError(f"{self.name}: writes {counts} answers")
        learned = [turns[i].learned for i in answers]
        if places[OPEN]:
            spans = self._tagged(places, learned)
        else:
            starts = [self._start(messages, text, i) for i in answers]
            ends = [self._end(text, place, i) for place, i in zip(places[BEHIND], answers)]
            spans = list(zip(starts, ends, learned))
        return Rendered(text, tuple(spans))

    def _write(self, messages: list[dict], generation_prompt: bool = False) -> str:
        special = dict.fromkeys(TOKENS, "") | self.special
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=generation_prompt, tools=None, **special
            )
        except Exception as error:  # a template is a program, and may fail in any way
            said = " ".join(str(error).split())
            raise TemplateError(f"{self.name}: {said or type(error).__name__}") from None

    def _tagged(self, places: dict, learned: list[bool]) -> list[tuple[int, int, bool]]:
        """What the generation tag encloses; one for each answer, or all are learned."""
        tags = list(zip(places[OPEN], places[CLOSE]))
        if len(tags) == len(learned):
            return [(*tag, one) for tag, one in zip(tags, learned)]
        if all(learned):
            return [(*tag, True) for tag in tags]
        counts = f"{len(tags)} {{% generation %}} for {len(learned)} answers"
        raise TemplateError(f"{self.name}: {counts}, of which not all are learned")

    def _start(self, messages: list[dict], text: str, turn: int) -> int:
        opened = MARKS.sub("", self._write(messages[:turn], generation_prompt=True))
        if not text.startswith(opened):
            raise TemplateError(
                f"{self.name}: what it writes before turn {turn + 1} changes with later turns"
            )
        return len(opened)

    def _end(self, text: str, place: int, turn: int) -> int:
        end = place + len(text[place:]) - len(text[place:].lstrip()) if self.end else place
        if not text.startswith(self.end, end):
            raise TemplateError(f"{self.name}: turn {turn + 1} does not end with {self.end!r}")
        return end + len(self.end)


def as_messages(turns: tuple[Turn, ...]) -> list[dict]:
    """What a template is given, media as their marks.

    Raises:
        TemplateError: a text holds a mark.
    """
    count, messages = 0, []
    for turn in turns:
        content = ""
        for modality, value in turn.parts:
            if modality != TEXT:
                content += f"\ufdd0{count}\ufdd1"
                count += 1
            elif RESERVED.search(value):
                raise TemplateError("a text holds one of the code points U+FDD0 to U+FDEF")
            else:
                content += value
        messages.append({"role": turn.role, "content": content})
    return messages


def _mark(content: str) -> str:
    """Templates strip what they are given: the mark goes behind the last letter."""
    last = len(content.rstrip())
    return content[:last] + BEHIND + content[last:]


def _take_marks(text: str) -> tuple[str, dict[str, list[int]]]:
    """The text without the marks of answers, and where in it each of them stood."""
    places: dict[str, list[int]] = {BEHIND: [], OPEN: [], CLOSE: []}
    for number, match in enumerate(MARKS.finditer(text)):
        places[match[0]].append(match.start() - number)
    return MARKS.sub("", text), places


class _Generation(Extension):
    """``{% generation %} .. {% endgeneration %}`` writes marks around what it encloses."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [
            jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)], lineno=line)
            for mark in (OPEN, CLOSE)
        ]
        return [marks[0], *body, marks[1]]


def _environment() -> ImmutableSandboxedEnvironment:
    """What published templates count on."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )

    def raise_exception(message):
        raise jinja2.TemplateError(str(message))

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


ENVIRONMENT = _environment()


def read_template(folder: Path | str) -> ChatTemplate | None:
    """The template of a model folder: chat_template.jinja, or that of tokenizer_config.json; None
    where there is none.

    Raises:
        TemplateError, CheckpointError: a file is malformed.
    """
    folder = Path(folder)
    settings = _settings(folder / "tokenizer_config.json")
    special = {}
    for content in (_settings(folder / SPECIAL), settings):
        for key in TOKENS:
            value = content.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                special[key] = value
    path = folder / FILE
    if path.is_file():
        _check_size(path, MOST_BYTES)
        try:
            return ChatTemplate(path.read_text(encoding="utf-8"), special, str(path))
        except UnicodeDecodeError:
            raise TemplateError(f"{path}: not UTF-8 text") from None
    source = settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if source is None:
        return None
    path = folder / "tokenizer_config.json"
    if not isinstance(source, str) or len(source) > MOST_BYTES:
        raise TemplateError(f"{path}: chat_template must be a string of at most {MOST_BYTES} bytes")
    return ChatTemplate(source, special, str(path))


def write_template(folder: Path, template: ChatTemplate):
    """Write chat_template.jinja, and the special tokens that it may name."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(template.source, encoding="utf-8")
    partial.replace(folder / FILE)
    if template.special:
        write_json(folder / SPECIAL, template.special)


def _settings(path: Path) -> dict:
    if not path.is_file():
        return {}
    _check_size(path, MOST_JSON)
    return read_json(path)


def _check_size(path: Path, most: int):
    if path.stat().st_size > most:
        raise TemplateError(f"{path}: larger than {most:,} bytes")
