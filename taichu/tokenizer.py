"""Text -> ids of pieces and back: SentencePiece models, and the `tokenizers` package's files."""

from abc import ABC, abstractmethod
from pathlib import Path

import sentencepiece

from taichu.errors import CheckpointError

MOST_BYTES = 1 << 28  # of a tokenizer's file; the largest published ones have a tenth of it


class Tokenizer(ABC):
    """What turns text into pieces.

    Args:
        content: of its file, as bytes.

    Attributes:
        file: its name in a model folder, which tells the forms apart.
        size: one more than its largest id.

    Raises:
        CheckpointError: the bytes are not of this form.
    """

    file: str
    size: int

    def __init__(self, content: bytes):
        self.content = content

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Text -> ids, nothing added before or behind."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Ids below ``size`` -> text."""


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model (Kudo and Richardson, 1808.06226); see `Tokenizer`.

    Those that `train_tokenizer` makes give any text back exactly.
    """

    file = "tokenizer.model"

    def __init__(self, content: bytes):
        super().__init__(content)
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.load_from_serialized_proto(content)
        except RuntimeError:
            raise CheckpointError("not a SentencePiece model") from None
        self.size = self._pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self._pieces.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)


class JsonTokenizer(Tokenizer):
    """A tokenizer.json of the `tokenizers` package; see `Tokenizer`.

    Its added tokens, such as those that open and close a turn of a chat, are found in texts, and
    decoded as they are written.
    """

    file = "tokenizer.json"

    def __init__(self, content: bytes):
        import tokenizers  # of the extra "tokenizers"; most models have no need of it

        super().__init__(content)
        try:
            self._pieces = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the package raises no classes of its own
            said = " ".join(str(error).split())
            raise CheckpointError(f"not a tokenizer of the package tokenizers ({said})") from None
        self._pieces.no_truncation()
        self._pieces.no_padding()
        self.size = 1 + max(self._pieces.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> list[int]:
        return self._pieces.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids, skip_special_tokens=False)


FORMS = (JsonTokenizer, SentencePieceTokenizer)


def read_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer of a folder, of the form that its file's name tells.

    Raises:
        CheckpointError: there is none, or it is malformed.
    """
    return load_tokenizer(find_tokenizer(folder))


def find_tokenizer(folder: Path | str) -> Path:
    """The file of a folder's tokenizer: where there are both, tokenizer.json, which alone knows
    added tokens.

    Raises:
        CheckpointError: there is none.
    """
    for form in FORMS:
        path = Path(folder) / form.file
        if path.is_file():
            return path
    raise CheckpointError(f"{Path(folder) / FORMS[-1].file}: no such file")


def load_tokenizer(path: Path | str) -> Tokenizer:
    """A tokenizer by its file, which is read as JSON where its name says so.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"{path}: larger than {MOST_BYTES >> 20} MiB: not a tokenizer")
    form = JsonTokenizer if path.suffix == ".json" else SentencePieceTokenizer
    try:
        return form(path.read_bytes())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def train_tokenizer(texts: list[str], pieces: int, folder: Path | str) -> Tokenizer:
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
    return SentencePieceTokenizer((folder / "tokenizer.model").read_bytes())
