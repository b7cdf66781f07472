"""What the blocks' Cells are called in Hugging Face's LLaMA, Qwen and Mistral, so in adapters."""

import re

from taichu.model.published_names import OURS_TO_THEIRS, OUTSIDE


def to_peft(path: str) -> str:
    """Their path of one of our Cells; the same where they have none."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", path):
        number, inner = match.groups()
        if inner in OURS_TO_THEIRS:
            return f"model.layers.{number}.{OURS_TO_THEIRS[inner]}"
    return path
