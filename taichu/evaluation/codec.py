"""What the codecs keep: reconstruction in each modality's own measure, and use of the codes."""

import numpy as np

from taichu.evaluation.judge import distinct

DECIBELS = 80  # range of the log-mel grid when the adapter does not say


def codec_figures(model, data, limit: int = 512) -> dict[str, dict]:
    """PSNR in dB for image and video (peak to peak 2), root of the mean squared log-mel error in dB
    for audio, intersection over union of the occupied space for shape3d; ``usage``, share of the
    codes that occur, and ``perplexity``, exp of their entropy."""
    figures = {}
    for modality, adapter in model.adapters.items():
        _, rows = distinct(data, modality)
        real = np.asarray(data.grids[modality][rows[:limit]], np.float32)
        codes = model.encode_grids(modality, real)
        rebuilt = model.decode_codes(modality, codes)
        figures[modality] = {
            **measure(modality, real, rebuilt, getattr(adapter, "decibels", DECIBELS)),
            **use_of_codes(codes, model.config.codecs[modality].codes),
            "n": len(real),
        }
    return figures


def use_of_codes(codes: np.ndarray, known: int) -> dict:
    """Share of the ``known`` codes that occur, and exp of the entropy of their shares."""
    count = np.bincount(codes.ravel(), minlength=known)
    p = count[count > 0] / count.sum()
    perplexity = float(np.exp(-(p * np.log(p)).sum()))
    return {"usage": float((count > 0).mean()), "perplexity": perplexity, "codes": known}


def measure(modality: str, real: np.ndarray, rebuilt: np.ndarray, decibels: float) -> dict:
    """Reconstruction of grids in [-1, 1]."""
    error = ((real - rebuilt) ** 2).reshape(len(real), -1).mean(1)
    if modality == "audio":  # 2 of the grid's range are `decibels`
        return {"log_mel_l2_db": float(np.sqrt(error).mean() * decibels / 2)}
    if modality == "shape3d":  # a signed distance is negative inside
        inside, rebuilt_inside = real < 0, rebuilt < 0
        both = (inside & rebuilt_inside).reshape(len(real), -1).sum(1)
        either = (inside | rebuilt_inside).reshape(len(real), -1).sum(1)
        return {"iou": float((both / np.maximum(either, 1)).mean())}
    return {"psnr_db": float((10 * np.log10(4 / np.maximum(error, 1e-12))).mean())}
