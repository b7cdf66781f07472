"""Published tokenizers of both forms encode as their own packages do."""

import json
import subprocess
import sys
from pathlib import Path

import mistral_common
import pytest
import sentencepiece
import tokenizers
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer as Reference
from transformers import PreTrainedTokenizerFast

from taichu.errors import CheckpointError
from taichu.tokenizer import JsonTokenizer, SentencePieceTokenizer, read_tokenizer
from taichu.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
DATA = Path(mistral_common.__file__).parent / "data"
TEXTS = [
    "a red seven at the top left",
    "左上角的红色七",
    "紫东太初：全模态大模型，龘靐齉爩。",
    "English, 中文 and العربية mixed; naïve café",
    "🙂 👩‍👩‍👧 🇨🇳",
    "two  spaces,\ttabs\nand lines",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "file, size",
    [("tokenizer.model.v1", 32000), ("mistral_instruct_tokenizer_240323.model.v3", 32768)],
)
def test_a_published_sentencepiece_model(file, size, text):
    """Mistral's own package gives the ids; the text comes back."""
    made = SentencePieceTokenizer((DATA / file).read_bytes())
    assert made.size == size
    ids = made.encode(text)
    assert ids == Reference(DATA / file).encode(text, bos=False, eos=False)
    assert made.decode(ids) == text


CHAT = "<|im_start|>user\n左上角的红色七<|im_end|>\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with a tokenizer.json as those of Qwen and Llama 3 are: pieces of bytes, then added
    tokens, one of them of a text like any other; it cuts, fills up and adds a token by itself."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 9, trainer)
    made.add_special_tokens(["<|im_start|>", "<|im_end|>", "<bos>"])
    made.add_tokens(["<tool>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
    )
    made.enable_truncation(9)
    made.enable_padding(length=20)
    folder = tmp_path_factory.mktemp("published")
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("text", [*TEXTS, CHAT, "a <tool> here"])
def test_a_tokenizer_json(published, text):
    made = read_tokenizer(published)
    assert isinstance(made, JsonTokenizer) and made.size == 304
    reference = PreTrainedTokenizerFast(tokenizer_file=str(published / "tokenizer.json"))
    ids = made.encode(text)
    assert ids == reference.encode(text, add_special_tokens=False)
    assert made.decode(ids) == text


def test_added_tokens_are_one_piece_each(published):
    made = read_tokenizer(published)
    assert [made.encode(t) for t in ("<|im_start|>", "<tool>")] == [[300], [303]]
    assert CHAT.count("<|") == sum(i >= 300 for i in made.encode(CHAT)) == 2
    vocabulary = Vocabulary(made, {"image": 8}, spare=16)
    assert vocabulary.pieces == 320 == vocabulary.close("text")
    # what no text has, control tokens and codes are left out
    ids = [*vocabulary.encode(CHAT), 304, 319, 320, vocabulary.codes("image")[0]]
    assert vocabulary.decode(ids) == CHAT


def test_of_both_forms_the_one_that_knows_added_tokens(published, tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.content)
    assert isinstance(read_tokenizer(tmp_path), SentencePieceTokenizer)
    (tmp_path / "tokenizer.json").write_bytes((published / "tokenizer.json").read_bytes())
    assert isinstance(read_tokenizer(tmp_path), JsonTokenizer)


def test_a_model_carries_its_tokenizer(cpu, published, tokenizer, tmp_path):
    from taichu import Taichu
    from taichu.config import ModelConfig
    from taichu.export.onnx_folder import export_onnx
    from taichu.runtime import Runtime

    sizes = dict(width=16, depth=1, heads=1, key_value_heads=1, head_size=16, hidden=16)
    config = ModelConfig(**sizes, embedding=8, pieces=0, spare_pieces=4)
    content = (published / "tokenizer.json").read_bytes()
    Taichu(config, JsonTokenizer(content)).save_pretrained(tmp_path / "model")
    back = Taichu.from_pretrained(tmp_path / "model")
    assert back.config.pieces == 308 and back.vocabulary.encode("<tool>") == [303]
    exported = export_onnx(tmp_path / "model", tmp_path / "exported")
    assert (exported / "tokenizer.json").read_bytes() == content
    assert Runtime(exported, "cpu").embed(text=CHAT).shape == (8,)
    # a folder that is written again with another form holds that one alone
    Taichu(config, tokenizer).save_pretrained(tmp_path / "model")
    assert isinstance(read_tokenizer(tmp_path / "model"), SentencePieceTokenizer)


def test_what_is_no_tokenizer(tmp_path):
    for content in ("nonsense", "{}", '{"model": {"type": "BPE"}}', "[" * 9999):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match="tokenizer.json: not a tokenizer of the package"):
            read_tokenizer(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(CheckpointError, match="tokenizer.json: larger than 256 MiB"):
        read_tokenizer(tmp_path)


def test_the_package_is_named_where_it_is_missing(tmp_path, published):
    program = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from taichu.command_line import main\n"
        "sys.exit(main(['convert', '--from-hf', sys.argv[1], sys.argv[2]]))"
    )
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    settings = {"model_type": "llama", "vocab_size": 400} | dict.fromkeys(sizes, 2)
    (tmp_path / "config.json").write_text(json.dumps(settings | {"head_dim": 2}))
    (tmp_path / "tokenizer.json").write_bytes((published / "tokenizer.json").read_bytes())
    arguments = [sys.executable, "-c", program, str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    said = "taichu: tokenizers is not installed: pip install 'taichu[tokenizers]'\n"
    assert done.stderr == said


def test_the_file_is_what_the_package_reads(tokenizer):
    """One's own, too: SentencePiece gives the same ids."""
    reference = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.content)
    assert [reference.encode(text) for text in TEXTS] == [tokenizer.encode(t) for t in TEXTS]
