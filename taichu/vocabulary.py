"""The joint vocabulary: text pieces, then control tokens, then one range of codes a modality.

Text pieces come first so that a published tokenizer keeps its ids.
"""

from pathlib import Path

import numpy as np
import sentencepiece

from taichu.errors import CheckpointError

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

    @property
    def ranges(self) -> list[range]:
        """What a decoded token may be, one range a modality, text first.

        Text may also close its span: how long it is, is part of what is said.
        """
        return [range(self.pieces + 1)] + [self._codes[m] for m in self.media]


class Vocabulary(JointIds):
    """The joint ids, and the tokenizer of their text.

    Args:
        tokenizer: a SentencePiece model, as bytes.
        codes: number of codes of each grid modality, in the model's order.

    Raises:
        CheckpointError: the bytes are not a SentencePiece model.
    """

    def __init__(self, tokenizer: bytes, codes: dict[str, int]):
        self.tokenizer = tokenizer
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
        except RuntimeError:
            raise CheckpointError("tokenizer.model: not a SentencePiece model") from None
        super().__init__(self._pieces.get_piece_size(), codes)

    def encode(self, text: str) -> list[int]:
        """Text -> piece ids; `decode` gives the text back exactly (byte fallback)."""
        return self._pieces.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Piece ids -> text; ids outside the text range are left out."""
        return self._pieces.decode([int(i) for i in ids if i < self.pieces])


def modality_of(vocabulary: JointIds) -> np.ndarray:
    """(V,) int32: index of the modality an id belongs to, text first; control tokens: text."""
    index = np.zeros(vocabulary.size, np.int32)
    for i, ids in enumerate(vocabulary.ranges[1:], start=1):
        index[ids.start : ids.stop] = i
    return index


def control_tokens(media) -> list[str]:
    """Names of the control tokens, in the order of their ids.

    </text> comes first, next to the pieces: together they are what decoded text may be.
    """
    names = [f"</{TEXT}>", f"<{TEXT}>", "<pad>", "<null>", "<end>"]
    for modality in media:
        names += [f"<{modality}>", f"</{modality}>"]
    return names + [f"<{modality}:patch>" for modality in media]


def train_tokenizer(texts: list[str], pieces: int, folder: Path | str) -> bytes:
    """Train a SentencePiece model in which any UTF-8 text round-trips exactly.

    Args:
        texts: training lines, any language.
        pieces: upper bound of the vocabulary; 256 of them are bytes.
        folder: where the trainer may write its temporary files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / "tokenizer.txt"
    lines.write_text("\n".join(text.replace("\n", " ") for text in texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=pieces,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        # nothing is changed, added or dropped: decoding gives back what was encoded
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_whitespace=True,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    lines.unlink()
    (folder / "tokenizer.vocab").unlink()
    return (folder / "tokenizer.model").read_bytes()
