"""The model as a user holds it, whatever computes it: files in, vectors and files out."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from taichu.config import ModelConfig
from taichu.data.conversations.template import ChatTemplate
from taichu.data.conversations.tokens import Opening
from taichu.data.layout import Segment, Span
from taichu.data.packing import BatchShape, Layout, PackedBatch, pack
from taichu.errors import GenerationError
from taichu.inference.chat import open_chat, read_messages, until_turn_ends
from taichu.inference.generation import generate, stream
from taichu.inference.sampling import Sampling
from taichu.storage.model_folder import create_adapters, grids_of
from taichu.tokenizer import Tokenizer
from taichu.vocabulary import TEXT, Vocabulary

EMBED_ROWS, EMBED_LENGTH = 16, 128  # shape of the batches that `embed_many` fills


class UnifiedModel(ABC):
    """A vocabulary and adapters around what computes: `taichu.Taichu` on MindSpore, and exported
    graphs (`taichu.inference.exported_model`) on MindSpore or ONNX Runtime.

    Args:
        config: sizes; ``config.pieces`` is set to what the tokenizer has, and spare ones.
        tokenizer: of its text.

    Attributes:
        template: that conversations are written with; None: the model is not one to chat with.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer):
        self.vocabulary = Vocabulary.of_model(config, tokenizer)
        self.config = dataclasses.replace(config, pieces=self.vocabulary.pieces)
        self.adapters = create_adapters(config)
        self.template: ChatTemplate | None = None

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """(tokens, patch size) of each grid modality, in order."""
        return grids_of(self.adapters)

    @abstractmethod
    def embed_batch(self, batch: PackedBatch, count: int) -> np.ndarray:
        """The first ``count`` embeddings of a batch, (count, C) float32 unit vectors."""

    @abstractmethod
    def start_reading(self, batch: PackedBatch, rows: int, tokens: int) -> Callable:
        """Read conditions, one a row of the batch, that are continued by so many rows and tokens.

        Returns:
            (ids (R,), their (t, y, x) (R, 3), how many tokens were made before) -> logits (R, V) of
            the tokens after these, float32; to be called for token after token.
        """

    @abstractmethod
    def decode_codes(self, modality: str, codes: np.ndarray) -> np.ndarray:
        """Codes (n, tokens) -> grids (n, T, Y, X, C) float32 in [-1, 1]."""

    @property
    @abstractmethod
    def score_scale(self) -> float:
        """What cosines are multiplied by in alignment's softmax."""

    def embed(self, **inputs) -> np.ndarray:
        """Unit vectors of ``text=``, ``image=``, and whatever else the model knows.

        Each is a string (text) or a path (media), or a list of them; several modalities at once
        form one group, embedded together. A modality's list may be as long as the others' only.

        Returns:
            (C,) float32 for single values, (n, C) for lists.

        Raises:
            MediaError: a file cannot be read. GenerationError: an unknown modality, or nothing.
        """
        if not inputs:
            raise GenerationError(f"nothing to embed; give {', '.join((TEXT, *self.adapters))}")
        conditions, single = as_conditions(inputs, self.adapters)
        vectors = self.embed_many([self.read(condition) for condition in conditions])
        return vectors[0] if single else vectors

    def generate(self, into: str | tuple[str, ...], sampling: Sampling | None = None, **inputs):
        """Make text or media from any subset of modalities, none included.

        Args:
            into: "text" or a grid modality; or several, made one behind the other in this order.
            sampling: temperature and the rest; see `Sampling`.
            inputs: as for `embed`; a ``seed=`` among them sets the sampling's.

        Returns:
            `Generated` (``.save(path)``; ``.text`` or ``.grid``), a list of them where ``into``
            names several; and of either a list for lists.

        Raises:
            GenerationError: the modality is unknown. MediaError: a file cannot be read.
        """
        sampling = seeded(sampling, inputs)
        conditions, single = as_conditions(inputs, self.adapters)
        made = generate(self, into, [self.read(c) for c in conditions], sampling)
        return made[0] if single else made

    def stream(self, sampling: Sampling | None = None, **inputs) -> Iterator[str]:
        """A text made from single inputs, as `generate` makes it, in pieces as they come.

        Args:
            sampling: see `Sampling`; one candidate.
            inputs: as for `generate`; none of them a list.

        Raises:
            GenerationError: a modality is unknown, or lists or candidates are given. MediaError: a
                file cannot be read.
        """
        sampling = seeded(sampling, inputs)
        conditions, single = as_conditions(inputs, self.adapters)
        if not single or sampling.candidates > 1:
            raise GenerationError("a stream is of single inputs, and of one candidate")
        return stream(self, self.read(conditions[0]), sampling)

    def chat(self, messages: list[dict], sampling: Sampling | None = None) -> str:
        """The assistant's answer to a conversation, in the form that the chat template gives it.

        Args:
            messages: ``role`` ("system", "user", "assistant") and ``content``: a string, or a list
                of ``{"type": "text", "text": ..}`` and ``{"type": "image", "image": path}``.
            sampling: see `Sampling`.

        Raises:
            GenerationError: the model has no chat template, or a message is malformed.
            TemplateError: the template refuses the messages. MediaError: a file cannot be read.
        """
        opening = open_chat(self, read_messages(messages, self.adapters))
        sampling = until_turn_ends(sampling or Sampling(), self.template)
        return generate(self, TEXT, [opening], sampling)[0].text

    def read(self, condition: dict) -> dict:
        """Modality -> path or string, to modality -> grid or string."""
        return {
            name: value if name == TEXT else self.adapters[name].read(value)
            for name, value in condition.items()
        }

    def observe(self, content: dict | list[tuple] | Opening) -> tuple[Span, ...]:
        """The spans of a segment that observes grids and strings: modality -> one of them, or pairs
        of a modality and one, where a modality comes more than once; or a conversation's."""
        if isinstance(content, Opening):
            return content.spans
        spans = []
        for name, value in content.items() if isinstance(content, dict) else content:
            if name == TEXT:
                spans.append(Span(TEXT, ids=np.array(self.vocabulary.encode(value), np.int32)))
            else:
                geometry = self.adapters[name].geometry
                patches = geometry.patchify(value)
                spans.append(Span(name, patches=patches, coordinates=geometry.coordinates()))
        return tuple(spans)

    def embed_many(self, contents: list[dict]) -> np.ndarray:
        """Unit vectors (n, C) of many groups of grids and strings, packed together."""
        segments = [Segment(self.observe(content), embedding=1) for content in contents]
        if len(segments) % 2:
            segments.append(segments[-1])
        longest = max(len(segment) for segment in segments)
        length = max(EMBED_LENGTH, -(-longest // 64) * 64)
        # segments go in twos, as a batch's embeddings do; the caption tells which two they were
        waiting = [
            Layout((segments[i], segments[i + 1]), 0, i, aligned=True)
            for i in range(0, len(segments), 2)
        ]
        places = EMBED_ROWS * length
        grids = self.grids.items()
        patches = tuple(
            (n, T * self._room(n, segments, places // 2 // T), P) for n, (T, P) in grids
        )
        shape = BatchShape(EMBED_ROWS, length, 1, places // 16, patches)
        vectors = np.zeros((len(segments), self.config.embedding), np.float32)
        while waiting:
            batch, waiting = pack(waiting, shape, self.vocabulary)
            made = self.embed_batch(batch, 2 * shape.pairs)
            for pair, first in enumerate(batch.pair_caption):
                if first >= 0:
                    vectors[first : first + 2] = made[2 * pair : 2 * pair + 2]
        return vectors[: len(contents)]

    def _room(self, modality: str, segments: list[Segment], most: int) -> int:
        """Grids of a modality that a batch has room for: where each passes through a tower, seen or
        not, no more than twice those that there are."""
        if modality not in self.config.towers:
            return most
        spans = (span for segment in segments for span in segment.observed)
        seen = sum(span.modality == modality for span in spans)
        return min(most, 1 << max(seen - 1, 0).bit_length())


def seeded(sampling: Sampling | None, inputs: dict) -> Sampling:
    """A sampling with the ``seed`` of keyword inputs, which is taken out of them."""
    sampling = sampling or Sampling()
    if "seed" not in inputs:
        return sampling
    return dataclasses.replace(sampling, seed=inputs.pop("seed"))


def as_conditions(inputs: dict, modalities) -> tuple[list[dict], bool]:
    """Keyword inputs -> one dict a result, and whether single values were given."""
    for name in inputs:
        if name != TEXT and name not in modalities:
            known = ", ".join((TEXT, *modalities))
            raise GenerationError(f"this model has no modality {name!r}; it has {known}")
    lists = {name: value for name, value in inputs.items() if isinstance(value, (list, tuple))}
    if not lists:
        return [dict(inputs)], True
    counts = {len(value) for value in lists.values()}
    if len(counts) > 1 or len(lists) < len(inputs):
        raise GenerationError("give lists of equal length, or single values")
    if counts == {0}:
        raise GenerationError("the lists are empty")
    return [{n: v[i] for n, v in lists.items()} for i in range(counts.pop())], False
