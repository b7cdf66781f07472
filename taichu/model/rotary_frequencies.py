"""How fast each pair of a head's features turns along t, y and x (M-RoPE, Qwen2-VL 2409.12191)."""

import math

import numpy as np

from taichu.config import ModelConfig, RopeScaling


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """(3, K / 2): angle of each pair of features a step along t, y, x; a pair follows one axis.

    The pairs are dealt to the axes in turn, so that each axis has high and low frequencies; equal
    coordinates give plain one-dimensional RoPE whatever the deal.
    """
    pairs = config.head_size // 2
    share = np.array(config.rope_axes) / sum(config.rope_axes)
    angles = config.rope_base ** (-np.arange(pairs) / pairs)
    if config.rope_scaling:
        slowed = slowed_shares(config.rope_scaling, angles, config.rope_base)
        angles *= 1 - slowed + slowed / config.rope_scaling.factor
    frequencies = np.zeros((3, pairs), np.float32)
    dealt = np.zeros(3)
    for i in range(pairs):
        axis = int(np.argmax(share * (i + 1) - dealt))
        dealt[axis] += 1
        frequencies[axis, i] = angles[i]
    return frequencies


def slowed_shares(scaling: RopeScaling, angles: np.ndarray, base: float) -> np.ndarray:
    """From 0, not at all, to 1: how much of a scaling's factor each pair is slowed by.

    Between pairs that turn ``slow`` and ``fast`` times in a row of the length before, the share
    falls along the turns (llama3, as Llama 3.1 does) or along the pairs' numbers (yarn, 2309.00071,
    section 3.2).

    Args:
        angles: of the pairs, a step. base: of which they are powers.
    """
    pairs = len(angles)
    if scaling.kind == "linear":
        return np.ones(pairs)
    if scaling.kind == "llama3":
        turns = scaling.length * angles / (2 * math.pi)
        return np.clip((scaling.fast - turns) / (scaling.fast - scaling.slow), 0, 1)

    def number(turns: float) -> float:
        """Of the pair that turns so often, between whole ones."""
        return pairs * math.log(scaling.length / (2 * math.pi * turns)) / math.log(base)

    first, last = number(scaling.fast), number(scaling.slow)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    # a step where both are one
    return np.clip((np.arange(pairs) - first) / max(last - first, 1e-3), 0, 1)
