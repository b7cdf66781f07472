"""How the next token is chosen from its logits."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely one; otherwise logits are divided by it.
        top_k: choose among this many of the most likely; 0: among all.
        top_p: choose among the fewest whose probabilities reach this (1904.09751).
        min_p: choose among those at least this share as likely as the most likely (2407.01082).
        repetition_penalty: what the logits of ids that a span holds already are divided by where
            they are positive, and multiplied by where not (CTRL, 1909.05858, section 4.1).
        guidance: classifier-free guidance scale (2207.12598): 1 leaves the condition as it is.
        seed: of the draws; each result's draws depend on the seed and its place alone.
        pieces: longest text, in pieces.
        stop: strings that end a text, and are not part of it.
        candidates: how many are made for each condition; the one whose embedding is nearest the
            condition's is kept (as DALL-E ranks by CLIP, 2102.12092, section 2.6), of texts the one
            that the decoder finds likely as well.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    guidance: float = 1.0
    seed: int = 0
    pieces: int = 32
    candidates: int = 1
    stop: tuple[str, ...] = ()


def penalise(logits_RV: np.ndarray, made: list[list[int]], samplings: list[Sampling]) -> np.ndarray:
    """Logits with each row's penalty on the ids that it holds already."""
    if all(sampling.repetition_penalty == 1 for sampling in samplings):
        return logits_RV
    logits_RV = logits_RV.copy()
    for row, ids, sampling in zip(logits_RV, made, samplings):
        held = np.unique(ids).astype(int)
        penalty = sampling.repetition_penalty
        row[held] = np.where(row[held] > 0, row[held] / penalty, row[held] * penalty)
    return logits_RV


def choose(logits_RV: np.ndarray, samplings: list[Sampling], uniform_R: np.ndarray) -> np.ndarray:
    """Index (R,) of each row's next token by its own sampling; its draw is a number in [0, 1)."""
    temperature, top_k, top_p, min_p = (
        np.array([getattr(sampling, name) for sampling in samplings])
        for name in ("temperature", "top_k", "top_p", "min_p")
    )
    best_R, drawn = np.argmax(logits_RV, 1), temperature > 0
    if not drawn.any():
        return best_R
    scaled = logits_RV.astype(np.float64) / np.where(drawn, temperature, 1)[:, None]
    order = np.argsort(-scaled, 1, kind="stable")
    scaled = np.take_along_axis(scaled, order, 1)
    p = np.exp(scaled - scaled[:, :1])
    keep = p >= min_p[:, None]  # the most likely has 1 here
    p /= p.sum(1, keepdims=True)
    keep &= np.cumsum(p, 1) - p < top_p[:, None]
    keep[:, 0] = True  # whatever top_p is
    places = np.arange(p.shape[1])
    keep &= (places < top_k[:, None]) | (top_k[:, None] <= 0)
    reached = np.cumsum(np.where(keep, p, 0), 1)
    # the first whose share of the whole is above the draw
    place_R = (reached <= uniform_R[:, None] * reached[:, -1:]).sum(1)
    chosen_R = np.take_along_axis(order, place_R[:, None], 1)[:, 0]
    return np.where(drawn, chosen_R, best_R)


def log_likelihood(logits_RV: np.ndarray, chosen_R: np.ndarray) -> np.ndarray:
    """Log of the softmax (R,) at each row's index."""
    shifted = logits_RV.astype(np.float64) - logits_RV.max(1, keepdims=True)
    own_R = np.take_along_axis(shifted, chosen_R[:, None], 1)[:, 0]
    return own_R - np.log(np.exp(shifted).sum(1))
