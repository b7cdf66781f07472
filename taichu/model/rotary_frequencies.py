"""How fast each pair of a head's features turns along t, y and x (M-RoPE, Qwen2-VL 2409.12191)."""

import numpy as np

from taichu.config import ModelConfig


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """(3, K / 2): angle of each pair of features a step along t, y, x; a pair follows one axis.

    The pairs are dealt to the axes in turn, so that each axis has high and low frequencies; equal
    coordinates give plain one-dimensional RoPE whatever the deal.
    """
    pairs = config.head_size // 2
    share = np.array(config.rope_axes) / sum(config.rope_axes)
    frequencies = np.zeros((3, pairs), np.float32)
    dealt = np.zeros(3)
    for i in range(pairs):
        axis = int(np.argmax(share * (i + 1) - dealt))
        dealt[axis] += 1
        frequencies[axis, i] = config.rope_base ** (-i / pairs)
    return frequencies
