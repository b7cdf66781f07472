"""Tiny published models with parameters as they were drawn, made by `transformers`."""

from pathlib import Path
from types import SimpleNamespace

import pytest

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32, "rope_theta": 500000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN |= {"rope_theta": 1000000.0}

# each family as it was published: heads of its own or shared, tied or not, positions stretched
MODELS = {
    "llama-2": ("Llama", {"num_key_value_heads": None}),
    "llama-3": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", {"num_key_value_heads": 1, "rope_parameters": LINEAR}),
    "mistral": ("Mistral", {"head_dim": 32, "sliding_window": None}),
    "mistral-tied": ("Mistral", {"tie_word_embeddings": True, "sliding_window": 256}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2.5-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
}
SPARE = 11  # rows of the table that the tokenizer has no pieces for


def publish(folder: Path, name: str, content: bytes, pieces: int, kind: str, **saving):
    """Write a model of `MODELS` as it would be published; returns the model.

    Args:
        content, pieces: of its tokenizer.
        kind: of its numbers.
    """
    import torch
    import transformers

    family, settings = MODELS[name]
    config = getattr(transformers, f"{family}Config")(
        **{
            "vocab_size": pieces + SPARE,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            **settings,
        }
    )
    draw = torch.Generator().manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(config)
    for key, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=draw)
        parameter.data = 1 + 0.2 * drawn if "norm" in key else 0.15 * drawn
    model = model.to(getattr(torch, kind)).eval()
    model.save_pretrained(folder, **saving)
    (folder / "tokenizer.model").write_bytes(content)
    return model


@pytest.fixture(scope="session")
def published(tokenizer, tmp_path_factory):
    """Gives the folder of a model of that name in float32, and the model; nobody changes them."""
    made = {}

    def of(name: str) -> SimpleNamespace:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = publish(folder, name, tokenizer.content, tokenizer.size, "float32")
            made[name] = SimpleNamespace(folder=folder, model=model)
        return made[name]

    return of
