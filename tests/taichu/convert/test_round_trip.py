"""What is converted and written back has the same tensors, bit for bit, and its other files."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.to_hf import convert_to_hf
from taichu.errors import CheckpointError
from tests.taichu.convert.conftest import publish

INTS = {2: torch.int16, 4: torch.int32}


def load_folder(folder) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def assert_equal_bits(folder, other):
    tensors, others = load_folder(folder), load_folder(other)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype and tensor.shape == others[name].shape, name
        bits = INTS[tensor.element_size()]
        assert torch.equal(tensor.view(bits), others[name].view(bits)), name


@pytest.mark.parametrize(
    "name, kind, saving",
    [
        ("llama-2", "float16", {}),
        ("llama-3", "bfloat16", {"max_shard_size": "60KB"}),
        ("mistral", "float32", {"max_shard_size": "150KB"}),
        ("qwen2", "float16", {"max_shard_size": "60KB"}),
        ("qwen2.5-yarn", "bfloat16", {}),
        ("qwen3-tied", "float32", {}),
    ],
)
def test_bits_come_back(tokenizer, tmp_path, name, kind, saving):
    folder = tmp_path / "published"
    model = publish(folder, name, tokenizer.content, tokenizer.size, kind, **saving)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == bool(saving)
    convert_from_hf(folder, tmp_path / "converted", ("video",))
    back = convert_to_hf(tmp_path / "converted", tmp_path / "back")
    assert_equal_bits(folder, back)
    first, second = (json.loads((path / "config.json").read_text()) for path in (folder, back))
    assert first == second
    assert (back / "tokenizer.model").read_bytes() == tokenizer.content
    load = transformers.AutoModelForCausalLM.from_pretrained
    first, second = (load(path, dtype="auto") for path in (folder, back))
    assert second.dtype == model.dtype
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(first(ids).logits, second(ids).logits)


def test_bits_come_back_from_what_the_model_has_saved(cpu, published, tmp_path):
    folder = published("qwen3-tied").folder
    converted = convert_from_hf(folder, tmp_path / "converted", ("image",))
    Taichu.from_pretrained(converted).save_pretrained(tmp_path / "saved")
    assert_equal_bits(folder, convert_to_hf(tmp_path / "saved", tmp_path / "back"))


def test_tensors_of_several_kinds_and_a_tied_head_that_was_written(published, tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(published("llama-3").folder, folder)
    tensors = {name: t.bfloat16() for name, t in load_file(folder / "model.safetensors").items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-6
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    converted = convert_from_hf(folder, tmp_path / "converted")
    assert_equal_bits(folder, convert_to_hf(converted, tmp_path / "back"))
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="'lm_head.weight': tie_word_embeddings is true"):
        convert_from_hf(folder, tmp_path / "other")


def test_frequencies_that_were_saved_are_compared(published, tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(published("llama-2").folder, folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    right = dict(tensors, **{name: (10000.0 ** (-torch.arange(8) / 8)).half()})
    save_file(right, folder / "model.safetensors", {"format": "pt"})
    converted = convert_from_hf(folder, tmp_path / "converted")
    back = load_folder(convert_to_hf(converted, tmp_path / "back"))
    assert back.keys() == tensors.keys()
    right[name] = right[name] * 2
    save_file(right, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="inv_freq': it is not what rope_theta gives"):
        convert_from_hf(folder, tmp_path / "other")


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_trained_numbers_are_rounded(cpu, tokenizer, tmp_path, kind):
    folder, name = tmp_path / "published", "model.layers.1.mlp.up_proj.weight"
    publish(folder, "qwen2", tokenizer.content, tokenizer.size, kind)
    model = Taichu.from_pretrained(convert_from_hf(folder, tmp_path / "converted"))
    parameter = model.backbone.blocks[1].feed_forward.up.weight
    trained = parameter.asnumpy() + np.float32(1e-4)
    parameter.set_data(type(parameter.value())(trained))
    model.save_pretrained(tmp_path / "trained")
    back = load_folder(convert_to_hf(tmp_path / "trained", tmp_path / "back"))
    assert torch.equal(back[name], torch.tensor(trained).to(getattr(torch, kind)))
    trained[3, 5] = 1e38 if kind == "float16" else 3.4e38
    parameter.set_data(type(parameter.value())(trained))
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(CheckpointError, match=f"tensor '{name}': a number is too large for"):
        convert_to_hf(tmp_path / "trained", tmp_path / "other")
    assert not (tmp_path / "other").exists()
