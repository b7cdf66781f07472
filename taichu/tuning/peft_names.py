"""What the blocks' Cells are called in Hugging Face's LLaMA, Qwen and Mistral, so in adapters."""

import re

OURS_TO_THEIRS = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
THEIRS_TO_OURS = {theirs: ours for ours, theirs in OURS_TO_THEIRS.items()}


def to_peft(path: str) -> str:
    """Their path of one of our Cells; the same where they have none."""
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", path):
        number, inner = match.groups()
        if inner in OURS_TO_THEIRS:
            return f"model.layers.{number}.{OURS_TO_THEIRS[inner]}"
    return path


def from_peft(path: str) -> str:
    """Our path of one of their modules, or of one of ours."""
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", path):
        number, inner = match.groups()
        if inner in THEIRS_TO_OURS:
            return f"blocks.{number}.{THEIRS_TO_OURS[inner]}"
    return path
