"""The joint vocabulary: text pieces, then control tokens, then one range of codes a modality.

Text pieces come first so that a published tokenizer keeps its ids.
"""

import numpy as np

from taichu.config import ModelConfig
from taichu.tokenizer import Tokenizer

TEXT = "text"


class JointIds:
    """Ids of everything the model reads and writes, by number alone.

    Args:
        pieces: number of text pieces.
        codes: number of codes of each grid modality, in the model's order.

    Attributes:
        media: the grid modalities. size: V. pad, null, end: control tokens.
    """

    def __init__(self, pieces: int, codes: dict[str, int]):
        self.pieces, self.media = pieces, tuple(codes)
        names = control_tokens(self.media)
        self._control = {name: pieces + i for i, name in enumerate(names)}
        self._codes, start = {}, pieces + len(names)
        for modality, count in codes.items():
            self._codes[modality] = range(start, start + count)
            start += count
        self.size = start
        self.pad, self.null, self.end = (self._control[n] for n in names[2:5])

    @classmethod
    def of_size(cls, size: int, codes: dict[str, int]) -> "JointIds":
        """Those of a vocabulary of so many ids, these codes among them."""
        return cls(size - len(control_tokens(codes)) - sum(codes.values()), codes)

    def open(self, modality: str) -> int:
        """The control token that opens a span of the modality."""
        return self._control[f"<{modality}>"]

    def close(self, modality: str) -> int:
        """The control token that closes a span of the modality."""
        return self._control[f"</{modality}>"]

    def patch(self, modality: str) -> int:
        """The id that stands where an observed patch stands."""
        return self._control[f"<{modality}:patch>"]

    def codes(self, modality: str) -> range:
        """The ids of a modality's codes."""
        return self._codes[modality]

    def of(self, modality: str) -> list[int]:
        """All ids of a grid modality: its control tokens, then its codes."""
        control = self.open(modality), self.close(modality), self.patch(modality)
        return [*control, *self.codes(modality)]

    @property
    def ranges(self) -> list[range]:
        """What a decoded token may be, one range a modality, text first.

        Text may also close its span: how long it is, is part of what is said.
        """
        return [range(self.pieces + 1)] + [self._codes[m] for m in self.media]


class Vocabulary(JointIds):
    """The joint ids, and the tokenizer of their text.

    Args:
        tokenizer: of the text.
        codes: number of codes of each grid modality, in the model's order.
        spare: ids of text behind the tokenizer's that no text has.
    """

    def __init__(self, tokenizer: Tokenizer, codes: dict[str, int], spare: int = 0):
        self.tokenizer = tokenizer
        super().__init__(tokenizer.size + spare, codes)

    @classmethod
    def of_model(cls, config: ModelConfig, tokenizer: Tokenizer) -> "Vocabulary":
        """The joint vocabulary of a model."""
        return cls(tokenizer, config.code_counts, config.spare_pieces)

    def encode(self, text: str) -> list[int]:
        """Text -> piece ids; of a tokenizer of `taichu.tokenizer.train_tokenizer`, `decode` gives
        the text back exactly (byte fallback)."""
        return self.tokenizer.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Piece ids -> text; ids that are not the tokenizer's are left out."""
        return self.tokenizer.decode([int(i) for i in ids if i < self.tokenizer.size])


def modality_of(vocabulary: JointIds) -> np.ndarray:
    """(V,) int32: index of the modality an id belongs to, text first; control tokens: text."""
    index = np.zeros(vocabulary.size, np.int32)
    for i, ids in enumerate(vocabulary.ranges[1:], start=1):
        index[ids.start : ids.stop] = i
    return index


def new_places(old: JointIds, new: JointIds) -> np.ndarray:
    """(V of old,) int: the id in a new vocabulary, of as many pieces and more modalities, of what
    each id of an old one stands for."""
    places = np.arange(old.size)
    for modality in old.media:
        places[old.of(modality)] = new.of(modality)
    return places


def control_tokens(media) -> list[str]:
    """Names of the control tokens, in the order of their ids.

    </text> comes first, next to the pieces: together they are what decoded text may be.
    """
    names = [f"</{TEXT}>", f"<{TEXT}>", "<pad>", "<null>", "<end>"]
    for modality in media:
        names += [f"<{modality}>", f"</{modality}>"]
    return names + [f"<{modality}:patch>" for modality in media]
