"""Floating-point numbers as safetensors files name and hold them, to float32 and back.

NumPy has no bfloat16: it is the first two bytes of a float32.
"""

import numpy as np

RAW = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # as NumPy reads them


def widen(raw: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as a file holds them -> float32, exactly."""
    if kind == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32)


def narrow(values: np.ndarray, kind: str) -> np.ndarray:
    """Float32 -> numbers as a file holds them, the nearest of its kind; what `widen` gave, exactly.

    Raises:
        OverflowError: a finite number is too large for the kind.
    """
    if kind == "F32":
        return values
    with np.errstate(over="ignore"):
        raw = _narrow_bfloat16(values) if kind == "BF16" else values.astype(np.float16)
    if not np.array_equal(np.isfinite(widen(raw, kind)), np.isfinite(values)):
        raise OverflowError(f"a number is too large for {kind}")
    return raw


def _narrow_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    if not (bits & 0xFFFF).any():
        return (bits >> 16).astype(np.uint16)
    nearest = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # of two as near, the even one
    return np.where(np.isnan(values), bits >> 16 | 0x40, nearest).astype(np.uint16)
