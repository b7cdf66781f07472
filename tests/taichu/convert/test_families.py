"""What published settings mean is what `transformers` takes them to mean."""

import copy

import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from taichu.config import ModelConfig, RopeScaling
from taichu.convert.families import FAMILIES, backbone_settings
from taichu.model.rotary_frequencies import rotary_frequencies

NAMES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SMALLEST = {
    "vocab_size": 99,
    "hidden_size": 4096,
    "intermediate_size": 11,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
}


def settings_of(content: dict) -> dict:
    return backbone_settings(content, "config.json")


NULL = {"num_key_value_heads": None}  # transformers wants a number of a Mistral


@pytest.mark.parametrize(
    "kind, more",
    [(kind, {}) for kind in FAMILIES] + [(kind, NULL) for kind in FAMILIES if kind != "mistral"],
    ids=str,
)
def test_what_is_not_said(kind, more):
    content = {**SMALLEST, "max_position_embeddings": 4096, "model_type": kind, **more}
    expected = getattr(transformers, f"{NAMES[kind]}Config")(**content)
    made = settings_of(content)
    assert made["key_value_heads"] == expected.num_key_value_heads
    assert made["head_size"] == getattr(expected, "head_dim", 128)
    assert made["norm_epsilon"] == expected.rms_norm_eps
    assert made["tied"] == expected.tie_word_embeddings
    assert made["rope_base"] == expected.rope_parameters["rope_theta"]
    assert made["rope_scaling"] is None and expected.rope_parameters["rope_type"] == "default"


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"type": "linear", "factor": 3},
    {**LLAMA3, "original_max_position_embeddings": 256},
    {**LLAMA3, "low_freq_factor": 0.7, "factor": 32.0},
    YARN,
    {**YARN, "type": "yarn"},
    {**YARN, "truncate": False},
    {**YARN, "beta_fast": 20.0, "beta_slow": 2.0},
    {**YARN, "beta_fast": None, "attention_factor": 0.7},
    {**YARN, "mscale": 0.9, "mscale_all_dim": 0.6},
    {**YARN, "mscale": 0.9},
    {"rope_type": "yarn", "factor": 1.0},
    {**YARN, "original_max_position_embeddings": 7},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("form", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("base", [10000.0, 1e6])
def test_frequencies(scaling, form, base):
    sizes = SMALLEST | {"model_type": "llama", "max_position_embeddings": 512}
    sizes |= {"hidden_size": 128, "num_attention_heads": 2}
    if form == "rope_parameters":
        content = {**sizes, form: {**scaling, "rope_theta": base}}
    else:
        content = {**sizes, form: scaling, "rope_theta": base}
    published = transformers.LlamaConfig(**copy.deepcopy(content))  # it changes what it is given
    rotary = LlamaRotaryEmbedding(published)
    config = ModelConfig(**settings_of(content), embedding=1)
    made = rotary_frequencies(config).sum(0)
    np.testing.assert_allclose(made, rotary.inv_freq.numpy(), rtol=2e-6)
    assert config.rotary_size == pytest.approx(rotary.attention_scaling)
    if scaling.get("rope_type", "linear") != "default" and scaling["factor"] > 1:
        plain = base ** (-torch.arange(32) / 32)
        assert not np.allclose(made, plain.numpy(), rtol=1e-2)


# as they were published
LLAMA_3_1_8B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}
QWEN2_5_HALF_B = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_HALF_B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL_7B_3 = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.0.dev0",
    "use_cache": True,
    "vocab_size": 32768,
}


@pytest.mark.parametrize(
    "content, sizes",
    [
        (LLAMA_3_1_8B, (4096, 32, 32, 8, 128, 14336, 128256, False, False, False, 5e5)),
        (QWEN2_5_HALF_B, (896, 24, 14, 2, 64, 4864, 151936, False, True, True, 1e6)),
        (QWEN3_HALF_B, (1024, 28, 16, 8, 128, 3072, 151936, True, False, True, 1e6)),
        (MISTRAL_7B_3, (4096, 32, 32, 8, 128, 14336, 32768, False, False, False, 1e6)),
    ],
    ids=["llama", "qwen2", "qwen3", "mistral"],
)
def test_settings_as_they_were_published(content, sizes):
    made = settings_of(content)
    names = "width depth heads key_value_heads head_size hidden pieces query_key_norm bias tied"
    assert tuple(made[name] for name in (*names.split(), "rope_base")) == sizes
    stretched = RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)
    assert made["rope_scaling"] == (stretched if content is LLAMA_3_1_8B else None)
