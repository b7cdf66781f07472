"""What requests may hold: OpenAI's fields, and a few of ours beside them.

A field that nothing is done with is refused, unless it has no bearing on the answer: who asks for
log-probabilities must not believe that there are none.
"""

import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from taichu.inference.sampling import Sampling
from taichu.server.errors import RequestError
from taichu.vocabulary import TEXT

Stop = Annotated[str, Field(min_length=1, max_length=100)]


class Request(BaseModel):
    """Fields of every request; ``user`` and such are for the caller's own use."""

    model_config = ConfigDict(extra="forbid")

    model: str
    user: str | None = None
    metadata: dict | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class Message(BaseModel):
    """One message. Its parts are checked where they are read, so that a fault is named well.

    Attributes:
        role: read where the model was tuned on conversations and text is asked for, alone; all are
            read alike otherwise.
        content: a string or parts. parts: of an answer that is sent back, in place of its content.
    """

    model_config = ConfigDict(extra="ignore")  # an answer that is sent back holds more

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list | None = None
    parts: list | None = None


class StreamOptions(BaseModel):
    """OpenAI's."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class AudioOptions(BaseModel):
    """OpenAI's; there is one voice only.

    Attributes:
        format: of sounds in the answer.
    """

    model_config = ConfigDict(extra="ignore")

    format: str = "wav"


class ChatRequest(Request):
    """``POST /v1/chat/completions``.

    Attributes:
        messages: together the condition, in order.
        modalities: what is made, in this order.
        formats: modality -> kind of file ("png", "wav", "webm", "glb"), where another is wanted.
        max_completion_tokens, max_tokens: longest text, in pieces.
        n: answers. candidates: of each answer so many are made and the best is kept.
        top_k, min_p, repetition_penalty, guidance: see `taichu.Sampling`.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    modalities: Annotated[list[str], Field(min_length=1, max_length=16)] = [TEXT]
    formats: dict[str, str] = {}
    audio: AudioOptions | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 1
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] = 0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1
    guidance: Annotated[float, Field(ge=0, le=20)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    # what is not done may be asked for by its default only
    logprobs: Literal[False] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen; without a seed, by one that is drawn."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            temperature=self.temperature or 0.0,
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            guidance=self.guidance,
            seed=secrets.randbits(62) if self.seed is None else self.seed,
            pieces=self.max_completion_tokens or self.max_tokens or Sampling.pieces,
            candidates=self.candidates,
            stop=tuple(stop),
        )

    def suffixes(self, adapters: dict) -> dict[str, str]:
        """The kind of file of each modality that is made.

        Raises:
            RequestError: a modality is unknown or named twice, or cannot be of the kind.
        """
        if len(set(self.modalities)) < len(self.modalities):
            raise RequestError("modalities: each may be named once", param="modalities")
        for name in self.modalities:
            if name != TEXT and name not in adapters:
                known = ", ".join((TEXT, *adapters))
                what = f"modalities: the model cannot make {name!r}; it makes {known}"
                raise RequestError(what, param="modalities")
        kinds = {"audio": self.audio.format} if self.audio else {}
        chosen = {}
        for name in self.modalities:
            if name == TEXT:
                continue
            known = adapters[name].suffixes
            kind = (kinds | self.formats).get(name, FORMATS.get(name, known[0][1:]))
            if f".{kind}" not in known:
                kinds_known = ", ".join(suffix[1:] for suffix in known)
                what = f"formats.{name} must be one of {kinds_known}, not {kind!r}"
                raise RequestError(what, param="formats")
            chosen[name] = f".{kind}"
        return chosen


class EmbeddingRequest(Request):
    """``POST /v1/embeddings``.

    Attributes:
        input: a string, or a list, each item of which gives one embedding: a string, a content
            part, or a list of parts, which are embedded together.
        dimensions: may be what the model has only.
    """

    input: str | list
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


# what browsers show, of the kinds that adapters write
FORMATS = {"image": "png", "audio": "wav", "video": "webm", "shape3d": "glb"}
