"""What would be computed otherwise, and what is damaged, is refused by the name of key or file."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from taichu.convert.from_hf import convert_from_hf
from taichu.convert.to_hf import convert_to_hf
from taichu.errors import CheckpointError, ConfigError, TaichuError

GONE = "gone"  # a word, so that all processes of a test run name the tests alike
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
SLIDING = ["full_attention", "sliding_attention"]


def rope(kind: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("llama-2", {"model_type": "gpt2"}, "model_type is 'gpt2'; it must be one of llama"),
        ("llama-2", {"model_type": GONE}, "model_type is None"),
        ("llama-2", {"model_type": ["llama"]}, "model_type is"),
        ("llama-2", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is known"),
        ("llama-2", {"attention_bias": True}, "attention_bias is True"),
        ("llama-2", {"mlp_bias": True}, "mlp_bias is True"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("qwen2", {"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen2", {"layer_types": SLIDING}, "layer_types has 'sliding_attention'"),
        ("qwen2", {"auto_map": {"AutoModel": "x.y"}}, "auto_map is not known, and might change"),
        ("qwen2", {"logit_scale": 0.5}, "logit_scale is not known, and might change"),
        ("mistral", {"sliding_window": 255}, "sliding_window is 255, less than max_position"),
        (
            "mistral",
            {"sliding_window": GONE, "max_position_embeddings": 8192},
            "sliding_window is 4096, less than max_position",
        ),
        ("llama-2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama-2", rope("default", partial_rotary_factor=0.5), "partial_rotary_factor is not 1"),
        ("llama-2", rope("dynamic", factor=2.0), "rope_type is 'dynamic'; its frequencies hang"),
        ("llama-2", rope("longrope"), "rope_type is 'longrope'; its frequencies hang"),
        ("llama-2", rope("proportional"), "rope_parameters.rope_type is 'proportional'; it must"),
        ("llama-2", rope("linear"), "rope_parameters.factor is missing"),
        ("llama-2", rope("linear", factor="2"), "rope_parameters.factor is '2'"),
        ("llama-2", rope("linear", factor=2.0, slow=1), "rope_parameters.slow is not known"),
        ("llama-2", {"rope_parameters": LLAMA3}, "rope_parameters.low_freq_factor is 4.0"),
        ("llama-2", rope("default", mrope_section=[1]), "rope_parameters.mrope_section is not"),
        (
            "llama-2",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling and rope_parameters differ",
        ),
        ("llama-2", {"rope_theta": 5.0}, "rope_theta is 5.0, and 10000.0 in rope_parameters"),
        ("llama-2", {"hidden_size": GONE}, "hidden_size is missing"),
        ("llama-2", {"hidden_size": "64"}, "hidden_size is '64'; it must be int"),
        ("llama-2", {"hidden_size": True}, "hidden_size is True; it must be int"),
        ("llama-2", {"hidden_size": -64}, "hidden_size is -64"),
        ("llama-2", {"hidden_size": 10**400}, "hidden_size is 1000"),
        ("llama-2", {"head_dim": 15}, "head_dim is 15; it must be even"),
        ("llama-2", {"num_key_value_heads": 3}, "num_key_value_heads is 3"),
        (
            "llama-2",
            {"head_dim": None, "num_attention_heads": 3, "num_key_value_heads": None},
            "num_attention_heads is 3; it must divide 64",
        ),
        ("llama-2", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ("llama-2", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; it must be bool"),
        ("llama-2", {"vocab_size": 9}, "tokenizer.model: has ids up to"),
        ("llama-2", {"hidden_size": 128}, "'model.embed_tokens.weight' has shape"),
        ("llama-2", {"intermediate_size": 97}, "'model.layers.0.mlp.gate_proj.weight' has shape"),
        ("llama-2", {"num_hidden_layers": 3}, "'model.layers.2.input_layernorm.weight' is missing"),
        ("llama-2", {"num_hidden_layers": 10**9}, "'model.layers.2.input_layernorm.weight' is"),
        ("llama-2", {"num_hidden_layers": 1}, "'model.layers.1.input_layernorm.weight': it is not"),
        ("llama-3", {"tie_word_embeddings": False}, "tensor 'lm_head.weight' is missing"),
        ("llama-2", {"model_type": "qwen2"}, "self_attn.q_proj.bias' is missing"),
        ("qwen2", {"model_type": "llama"}, "self_attn.k_proj.bias': it is not part"),
    ],
    ids=str,
)
def test_settings(published, tmp_path, name, changes, said):
    folder = copy_of(published(name).folder, tmp_path)
    content = json.loads((folder / "config.json").read_text()) | changes
    content = {key: value for key, value in content.items() if value is not GONE}
    (folder / "config.json").write_text(json.dumps(content))
    assert said in error_of(folder, tmp_path / "out")


def copy_of(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "published")
    return tmp_path / "published"


def error_of(folder, out, convert=convert_from_hf) -> str:
    """What is said; nothing may be left behind."""
    with pytest.raises(TaichuError) as caught:
        convert(folder, out)
    assert not out.exists() and not out.with_name("out.partial").exists()
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def cut(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])


def lengthen(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def claim_much(folder):
    """A header that claims to be longer than any memory."""
    (folder / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def claim_large(folder):
    """A tensor that claims to be larger than the file."""
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"model.norm.weight": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def change(**tensors):
    def act(folder):
        found = load_file(folder / "model.safetensors")
        for name, value in tensors.items():
            name = name.replace("__", ".")
            found[name] = value(found.get(name))
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    return act


def not_finite(table):
    table[3, 3] = float("inf")
    return table


@pytest.mark.parametrize(
    "act, said",
    [
        (cut, "model.safetensors: damaged"),
        (lengthen, "model.safetensors: damaged"),
        (claim_much, "model.safetensors: damaged"),
        (claim_large, "model.safetensors: damaged"),
        (only_pickle, "pytorch_model.bin is a pickle, which is never read"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda f: (f / "tokenizer.model").unlink(), "tokenizer.model: no such file"),
        (lambda f: (f / "tokenizer.model").write_text("x"), "tokenizer.model: not a Sentence"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
        (change(model__norm__weight=lambda t: t.to(torch.int32)), "'model.norm.weight' is I32; it"),
        (change(model__norm__weight=lambda t: t.double()), "'model.norm.weight' is F64; it must"),
        (change(model__norm__weight=lambda t: t[None]), "'model.norm.weight' has shape [1, 64]"),
        (change(extra=lambda t: torch.ones(2)), "tensor 'extra': it is not part of this model"),
        (change(model__embed_tokens__weight=not_finite), "holds numbers not finite"),
    ],
)
def test_files(published, tmp_path, act, said):
    folder = copy_of(published("qwen2").folder, tmp_path)
    act(folder)
    assert said in error_of(folder, tmp_path / "out")


@pytest.fixture
def sharded(published, tmp_path):
    """A folder of two shards, and its index's map."""
    folder = copy_of(published("qwen2").folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {name: f"part-{'norm' in name:d}.safetensors" for name in tensors}
    for file in set(placed.values()):
        held = {name: tensor for name, tensor in tensors.items() if placed[name] == file}
        save_file(held, folder / file, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    return folder, index, placed


NORM, TABLE = "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    "placed, said",
    [
        ({NORM: "../part-1.safetensors"}, f"'{NORM}' is placed outside the folder, in '../part-1"),
        ({NORM: "/etc/passwd"}, f"'{NORM}' is placed outside the folder, in '/etc/passwd'"),
        ({NORM: ".."}, f"'{NORM}' is placed outside the folder"),
        ({NORM: ""}, f"'{NORM}' is placed outside the folder"),
        ({NORM: "a\\b"}, f"'{NORM}' is placed outside the folder"),
        ({NORM: "a\0b"}, "no such file"),
        ({"other": "part-2.safetensors"}, "part-2.safetensors: no such file"),
        ({NORM: "part-0.safetensors"}, f"part-1.safetensors: tensor '{NORM}' is not in"),
        ({NORM: GONE}, f"part-1.safetensors: tensor '{NORM}' is not in"),
        ({"other": "part-0.safetensors"}, "part-0.safetensors: tensor 'other' is missing"),
        ({NORM: 3}, "weight_map must hold a file's name for each tensor"),
    ],
    ids=str,
)
def test_indices(sharded, tmp_path, placed, said):
    folder, index, known = sharded
    placed = {name: file for name, file in (known | placed).items() if file is not GONE}
    index.write_text(json.dumps({"weight_map": placed}))
    assert said in error_of(folder, tmp_path / "out")


def test_an_index_and_a_single_file(sharded, tmp_path):
    folder, _, _ = sharded
    shutil.copy(folder / "part-0.safetensors", folder / "model.safetensors")
    assert "delete one of them" in error_of(folder, tmp_path / "out")


def test_shards_may_be_links(sharded, tmp_path):
    """As caches of downloads keep them."""
    folder, _, _ = sharded
    (folder / "part-0.safetensors").rename(tmp_path / "blob")
    (folder / "part-0.safetensors").symlink_to(tmp_path / "blob")
    convert_from_hf(folder, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_is_asked_for(published, tmp_path):
    folder, out = published("qwen2").folder, tmp_path / "out"
    with pytest.raises(ConfigError, match="modality 'images' is unknown; did you mean 'image'"):
        convert_from_hf(folder, out, ("images",))
    with pytest.raises(ConfigError, match="model size 'nana' is unknown"):
        convert_from_hf(folder, out, (), "nana")
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(ConfigError, match="out.partial: is left of an earlier attempt; delete it"):
        convert_from_hf(folder, out)
    (tmp_path / "out.partial").rmdir()
    convert_from_hf(folder, out)
    for convert in (convert_from_hf, convert_to_hf):
        source = folder if convert is convert_from_hf else out
        with pytest.raises(ConfigError, match="out: is there already; name a new folder"):
            convert(source, out)


def flip_a_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def set_key(key, value):
    def act(folder):
        content = json.loads((folder / "config.json").read_text())
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
        (folder / "config.json").write_text(json.dumps(content))

    return act


@pytest.mark.parametrize(
    "act, said",
    [
        (flip_a_byte, "damaged (its content does not give its checksum)"),
        (cut, "model.safetensors: damaged"),
        (set_key("published", None), "published is missing: this model was not converted"),
        (set_key("published.kind", "F64"), "published has kind 'F64'"),
        (set_key("published.config.hidden_act", "gelu"), "hidden_act is 'gelu'"),
        (set_key("rope_base", 5.0), "rope_base is 5.0, of the published model 10000.0"),
        (set_key("depth", 1), "depth is 1, of the published model 2"),
        (change(other=lambda t: torch.ones(2)), "tensor 'other' is not part of this model"),
        (change(norm__weight=lambda t: torch.ones(2)), "tensor 'norm.weight' has shape [2]"),
        (change(table__own=lambda t: t[:9].clone()), "tensor 'table.own' has shape [9, 64]"),
    ],
)
def test_what_is_written_back(published, tmp_path, act, said):
    convert_from_hf(published("qwen2").folder, tmp_path / "converted")
    act(tmp_path / "converted")
    assert said in error_of(tmp_path / "converted", tmp_path / "out", convert_to_hf)


def test_a_model_that_was_not_converted(tiny_folder, tmp_path):
    said = error_of(tiny_folder, tmp_path / "out", convert_to_hf)
    assert "published is missing: this model was not converted" in said


def test_a_pickle_is_not_opened(published, tmp_path):
    """Nor is any other file than the named ones."""
    folder = copy_of(published("qwen2").folder, tmp_path)
    (folder / "pytorch_model.bin").write_bytes(np.random.default_rng(0).bytes(99))
    (folder / "pytorch_model.bin").chmod(0)
    convert_from_hf(folder, tmp_path / "out")
    with pytest.raises(CheckpointError):
        convert_from_hf(tmp_path, tmp_path / "other")
