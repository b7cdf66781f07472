"""What the blocks' Cells are called in Hugging Face's LLaMA, Qwen and Mistral, so in adapters."""

import re

from taichu.model.published_names import OURS_TO_THEIRS, THEIRS_TO_OURS

# the tables of ids' vectors, where a method puts something beside them
TABLES = {"table": "model.embed_tokens", "head": "lm_head"}


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
