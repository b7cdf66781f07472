"""``POST /v1/chat/completions``: messages -> condition -> job -> answers."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from itertools import islice

import numpy as np

from modality_adapters.errors import MediaError
from taichu.data.conversations.conversation import Turn
from taichu.errors import TemplateError
from taichu.inference.chat import open_chat, until_turn_ends
from taichu.inference.generation import Generated, begin_answers, finish, settled
from taichu.runtime import Runtime
from taichu.runtime.continuous_batching import Prompt
from taichu.server.engine import Engine, Job, Progress
from taichu.server.errors import RequestError
from taichu.server.limits import Limits
from taichu.server.media_process import MediaProcesses
from taichu.server.metrics import Metrics
from taichu.server.parts import as_part, parse_parts, read_parts
from taichu.server.schema import ChatRequest
from taichu.vocabulary import TEXT


class ChatCompletions:
    """Answers chat requests.

    Args:
        model: an exported model.
        engine: that decodes. media: that reads and writes files.
        limits, metrics: of the server.
        hosts: from which files are fetched.
    """

    def __init__(
        self,
        model: Runtime,
        engine: Engine,
        media: MediaProcesses,
        limits: Limits,
        metrics: Metrics,
        hosts: frozenset[str],
    ):
        self.model, self.engine, self.media = model, engine, media
        self.limits, self.metrics, self.hosts = limits, metrics, hosts

    async def begin(self, request: ChatRequest) -> "Completion":
        """Read what is given, and queue what is to be made.

        Raises:
            RequestError: a part of the request is wrong, or the queue is full.
        """
        suffixes = request.suffixes(self.model.adapters)
        if request.stream and request.candidates > 1:
            raise RequestError("a stream is of one candidate", param="candidates")
        sampling = request.sampling
        chatting = self.model.template is not None and request.modalities == [TEXT]
        if chatting:
            sampling = until_turn_ends(sampling, self.model.template)
        if sampling.candidates > 1 and not sampling.temperature:
            raise RequestError("candidates need a temperature above 0", param="candidates")
        parts, roles = [], []
        for number, message in enumerate(request.messages):
            given = "content" if message.parts is None else "parts"
            param = f"messages[{number}].{given}"
            found = parse_parts(getattr(message, given), param, self.model.adapters)
            parts += found
            roles.append((message.role, len(found)))
        condition = await read_parts(parts, self.limits, self.hosts, self.media)

        def prompt() -> Prompt:
            content = open_chat(self.model, as_turns(roles, condition)) if chatting else condition
            spans, into = self.model.observe(content), tuple(request.modalities)
            numbers = range(request.n)
            begun = [begin_answers(self.model, into, spans, sampling, n, content) for n in numbers]
            return Prompt(spans, [answer for answers in begun for answer in answers])

        try:
            prompted = await asyncio.to_thread(prompt)
        except TemplateError as error:
            raise RequestError(str(error), param="messages") from None
        job = Job(prompted, self.limits.seconds, request.stream)
        self.engine.submit(job)
        self.metrics.tokens.labels("given").inc(job.prompt.length)
        return Completion(self, request, condition, suffixes, job)


class Completion:
    """A request that is being decoded; either `whole` or `stream` is to be read to its end.

    Args:
        chat: whose request it is.
        request: as it came.
        condition: what was given, read.
        suffixes: of the files that are made, by modality.
        job: in the engine.
    """

    def __init__(self, chat, request: ChatRequest, condition: list, suffixes: dict, job: Job):
        self.chat, self.request, self.condition = chat, request, condition
        self.suffixes, self.job = suffixes, job
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    async def whole(self) -> dict:
        """The answer.

        Raises:
            RequestError: it cannot be made.
        """
        try:
            await self.job.done()
        finally:
            self.job.cancelled = True  # it matters where nobody waits for it any more
        answers, n = self.job.prompt.answers, self.request.n
        made = await asyncio.to_thread(finish, self.chat.model, [self.condition] * n, answers)
        choices = []
        for number, row in enumerate(made):
            message = await self._message(row)
            reason = self._reason(number)
            choices.append({"index": number, "message": message, "finish_reason": reason})
        return self._body("chat.completion", choices) | {"usage": self._usage()}

    async def stream(self) -> AsyncIterator[str]:
        """The answer as server-sent events; an error in between is one of them."""
        try:
            async for body in self._chunks():
                yield event(body)
        except RequestError as error:
            yield event(error.body)
        except Exception as error:
            yield event(RequestError(f"{type(error).__name__} in the server", 500).body)
            raise  # to be logged
        finally:
            self.job.cancelled = True
        yield "data: [DONE]\n\n"

    async def _chunks(self) -> AsyncIterator[dict]:
        count = range(self.request.n)
        told = [Told() for _ in count]
        for number in count:
            yield self._chunk(number, {"role": "assistant", "content": ""})
        while (news := await self.job.news()) is not None:
            for progress in news:
                async for delta in self._deltas(progress, told[progress.number]):
                    yield self._chunk(progress.number, delta)
        for number in count:
            yield self._chunk(number, {}, self._reason(number))
        options = self.request.stream_options
        if options and options.include_usage:
            yield self._body("chat.completion.chunk", []) | {"usage": self._usage()}

    async def _deltas(self, progress: Progress, told: "Told") -> AsyncIterator[dict]:
        """What is new of an answer."""
        answer, vocabulary = progress.answer, self.chat.model.vocabulary
        for modality, ids in progress.spans[told.spans :]:
            if modality == TEXT:
                text = answer.cut(vocabulary.decode(ids))
                if len(text) > len(told.text):
                    yield {"content": text[len(told.text) :]}
            else:
                yield {"parts": [await self._write(modality, ids)]}
            told.spans, told.text = told.spans + 1, ""
        if progress.ids:
            text = settled(answer.cut(vocabulary.decode(progress.ids)), answer.sampling.stop)
            if len(text) > len(told.text):
                yield {"content": text[len(told.text) :]}
                told.text = text

    async def _write(self, modality: str, ids: list[int]) -> dict:
        """A medium's codes as a content part."""
        model = self.chat.model
        codes = np.array([ids]) - model.vocabulary.codes(modality).start
        (grid,) = await asyncio.to_thread(model.decode_codes, modality, codes)
        return await self._part(modality, grid)

    async def _part(self, modality: str, grid: np.ndarray) -> dict:
        """What was made as a content part; where it is nothing that can be written, such as a solid
        without a surface, the part says so, and the rest of the answer is not lost."""
        suffix = self.suffixes[modality]
        try:
            data = await self.chat.media.write(modality, grid, suffix)
        except MediaError as error:
            kind = f"{modality}_url"
            return {"type": kind, kind: None, "error": {"message": error.reason}}
        return as_part(modality, data, suffix)

    async def _message(self, row: list[Generated]) -> dict:
        """An answer: all of it in order as ``parts``, and where OpenAI's clients look for it."""
        parts, texts, sounds = [], [], []
        for one in row:
            if one.text is not None:
                texts.append(one.text)
                parts.append(as_part(TEXT, one.text))
                continue
            parts.append(await self._part(one.modality, one.grid))
            if one.modality == "audio" and parts[-1]["audio_url"]:
                sounds.append(parts[-1]["audio_url"]["url"].split(",", 1)[1])
        message = {"role": "assistant", "content": "\n".join(texts) if texts else None}
        message |= {"refusal": None, "parts": parts}
        if sounds:
            expires = self.created + 3600  # of no account: answers are not kept here
            transcript = "\n".join(texts)
            message["audio"] = {"id": f"audio-{self.id}", "data": sounds[0]}
            message["audio"] |= {"expires_at": expires, "transcript": transcript}
        return message

    def _reason(self, number: int) -> str:
        candidates = self.request.candidates
        answers = self.job.prompt.answers[number * candidates : (number + 1) * candidates]
        return "length" if any(answer.cut_off for answer in answers) else "stop"

    def _usage(self) -> dict:
        prompt = self.job.prompt
        made = sum(len(ids) for answer in prompt.answers for _, ids in answer.spans)
        counts = {"prompt_tokens": prompt.length, "completion_tokens": made}
        return counts | {"total_tokens": prompt.length + made}

    def _chunk(self, number: int, delta: dict, reason: str | None = None) -> dict:
        choice = {"index": number, "delta": delta, "finish_reason": reason}
        return self._body("chat.completion.chunk", [choice])

    def _body(self, kind: str, choices: list) -> dict:
        head = {"id": self.id, "object": kind, "created": self.created}
        return head | {"model": self.request.model, "choices": choices}


def as_turns(roles: list[tuple[str, int]], condition: list[tuple]) -> tuple[Turn, ...]:
    """A conversation of the roles that speak, each so many parts of the condition."""
    parts = iter(condition)
    return tuple(
        Turn("system" if role == "developer" else role, tuple(islice(parts, count)))
        for role, count in roles
    )


class Told:
    """What has been sent of an answer: whole spans, and the beginning of a text."""

    def __init__(self):
        self.spans, self.text = 0, ""


def event(body: dict) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
