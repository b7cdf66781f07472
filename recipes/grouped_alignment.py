"""Train grouped alignment alone: a text and the media of its group, pooled and pulled together.

    taichu train recipes/grouped_alignment.yaml manifest=my/manifest.jsonl codecs=runs/codecs

The loss is the symmetric InfoNCE over the pairs of each group of a batch (VALOR 2304.08345, eq. 2),
with a learned temperature; pairs of equal caption are never each other's negatives. The decoding
head is not part of the compiled graph: the model embeds and retrieves, but makes nothing of use.
"""

from dataclasses import replace
from pathlib import Path

from recipes import pretrain
from recipes.pretrain import Config


def main(config: Config) -> Path:
    """Train by alignment alone; returns the model folder."""
    mixture = replace(config.mixture, grouped_weight=0.0, joint_weight=0.0)
    return pretrain.main(replace(config, mixture=mixture))
