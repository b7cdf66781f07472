"""Train joint decoding alone: the modalities of a sample decoded in one sequence, in drawn order.

    taichu train recipes/joint_decoding.yaml manifest=my/manifest.jsonl codecs=runs/codecs

The softmax runs over the whole joint vocabulary, and the control tokens that open and close each
span are learned too, so that the model decides what comes next. Embeddings are not trained.
"""

from dataclasses import replace
from pathlib import Path

from recipes import pretrain
from recipes.pretrain import Config


def main(config: Config) -> Path:
    """Train by joint decoding alone; returns the model folder."""
    mixture = replace(config.mixture, alignment_weight=0.0, grouped_weight=0.0)
    return pretrain.main(replace(config, mixture=mixture))
