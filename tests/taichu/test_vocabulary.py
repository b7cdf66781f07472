"""The joint vocabulary: text comes back exactly, and no two meanings share an id."""

import random

import pytest

from taichu.errors import CheckpointError
from taichu.tokenizer import SentencePieceTokenizer, train_tokenizer
from taichu.vocabulary import JointIds


@pytest.mark.parametrize(
    "text",
    [
        "a red seven at the top left",
        "左上角的红色七",
        "English, 中文 and العربية mixed; naïve café",
        "🙂 👩‍👩‍👧 🇨🇳",
        " leading, trailing  and   many spaces  ",
        "tab\t, line\nand return\r\n",
        "\x00\x01\x7f\ufeff\u200b\u2028",
        "ﬁ ① Ａ e\u0301 é",  # nothing is normalised
        "<pad> <image> </text> <0x41> <unk> <s>",  # text, not control tokens
        "",
    ],
)
def test_text_comes_back_exactly(vocabulary, text):
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert all(i in range(vocabulary.pieces) for i in ids)


def test_any_text_comes_back_exactly(vocabulary):
    draw = random.Random(0)
    for _ in range(300):
        points = [draw.choice([0x80, 0x800, 0x10000, 0x110000]) for _ in range(20)]
        text = "".join(chr(draw.randrange(limit)) for limit in points)
        text = text.encode("utf-8", "ignore").decode("utf-8")  # no lone surrogates
        text = text.replace("\u2581", "")  # stands for a space inside SentencePiece
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_known_text_is_short(vocabulary):
    assert len(vocabulary.encode("a red seven")) < len("a red seven")
    assert len(vocabulary.encode("红色")) <= 2


def test_ids_are_disjoint_and_text_comes_first(vocabulary):
    text, image, audio = vocabulary.ranges
    assert text == range(vocabulary.pieces + 1)  # the pieces, and the token that closes text
    assert vocabulary.close("text") == vocabulary.pieces
    assert image == vocabulary.codes("image") and len(image) == 8
    assert audio == vocabulary.codes("audio") and len(audio) == 5
    control = [vocabulary.pad, vocabulary.null, vocabulary.end, vocabulary.open("text")]
    control += [vocabulary.close("text")]
    for modality in ("image", "audio"):
        control += [token(modality) for token in (vocabulary.open, vocabulary.close)]
        control.append(vocabulary.patch(modality))
    everything = [*range(vocabulary.pieces), *control, *image, *audio]
    assert sorted(everything) == list(range(vocabulary.size))
    assert JointIds(vocabulary.pieces, {"image": 8, "audio": 5}).size == vocabulary.size


def test_decode_leaves_out_what_is_no_text(vocabulary):
    ids = vocabulary.encode("a red seven")
    extra = [vocabulary.close("text"), vocabulary.codes("image")[0], vocabulary.pad]
    assert vocabulary.decode([*ids, *extra]) == "a red seven"


def test_training_is_repeatable(tmp_path):
    lines = ["a red seven", "左上角的红色七"] * 9
    first, second = (train_tokenizer(lines, 300, tmp_path) for _ in range(2))
    assert first.content == second.content
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


def test_bytes_that_are_no_tokenizer():
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        SentencePieceTokenizer(b"nonsense")
