"""Train grouped decoding alone: one modality decoded from the other side of its group.

    taichu train recipes/grouped_decoding.yaml manifest=my/manifest.jsonl codecs=runs/codecs

Text is decoded from media and media's codes from text, the softmax restricted to the range of the
modality that is decoded (VALOR 2304.08345, eq. 6, for codes too). Embeddings are not trained.
"""

from dataclasses import replace
from pathlib import Path

from recipes import pretrain
from recipes.pretrain import Config


def main(config: Config) -> Path:
    """Train by grouped decoding alone; returns the model folder."""
    mixture = replace(config.mixture, alignment_weight=0.0, joint_weight=0.0)
    return pretrain.main(replace(config, mixture=mixture))
