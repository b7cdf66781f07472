"""How the next token is chosen from its logits."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely one; otherwise logits are divided by it.
        top_k: choose among this many of the most likely; 0: among all.
        top_p: choose among the fewest whose probabilities reach this (1904.09751).
        guidance: classifier-free guidance scale (2207.12598): 1 leaves the condition as it is.
        seed: of the draws; each result's draws depend on the seed and its place alone.
        pieces: longest text, in pieces.
        candidates: how many are made for each condition; the one whose embedding is nearest the
            condition's is kept (as DALL-E ranks by CLIP, 2102.12092, section 2.6), of texts the one
            that the decoder finds likely as well.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    seed: int = 0
    pieces: int = 32
    candidates: int = 1


def choose(logits_RV: np.ndarray, sampling: Sampling, uniform_R: np.ndarray) -> np.ndarray:
    """Index (R,) of each row's next token; its draw is a number in [0, 1)."""
    if sampling.temperature <= 0:
        return np.argmax(logits_RV, 1)
    scaled = logits_RV.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, 1, kind="stable")
    scaled = np.take_along_axis(scaled, order, 1)
    p = np.exp(scaled - scaled[:, :1])
    p /= p.sum(1, keepdims=True)
    keep = np.cumsum(p, 1) - p < sampling.top_p
    keep[:, 0] = True  # whatever top_p is
    if sampling.top_k > 0:
        keep[:, sampling.top_k :] = False
    reached = np.cumsum(np.where(keep, p, 0), 1)
    # the first whose share of the whole is above the draw
    drawn = (reached <= uniform_R[:, None] * reached[:, -1:]).sum(1)
    return np.take_along_axis(order, drawn[:, None], 1)[:, 0]


def log_likelihood(logits_RV: np.ndarray, chosen_R: np.ndarray) -> np.ndarray:
    """Log of the softmax (R,) at each row's index."""
    shifted = logits_RV.astype(np.float64) - logits_RV.max(1, keepdims=True)
    own_R = np.take_along_axis(shifted, chosen_R[:, None], 1)[:, 0]
    return own_R - np.log(np.exp(shifted).sum(1))
