"""Which processor ONNX Runtime computes on."""

from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from taichu.errors import ExportError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Provider:
    """A choice and why it was made, in one line.

    Attributes:
        names: ONNX Runtime's, the preferred one first.
    """

    names: tuple[str, ...]
    reason: str


def choose_provider(device: str, graph: Path) -> Provider:
    """CUDA where it works, else the CPU; or the one that is asked for.

    Args:
        device: "auto", "cpu" or "cuda".
        graph: what CUDA is tried with.

    Raises:
        ExportError: another word, or CUDA is asked for and does not work.
    """
    device = device.lower()
    if device not in DEVICES:
        raise ExportError(f"device {device!r}: must be one of {', '.join(DEVICES)}")
    if device == "cpu":
        return Provider((CPU,), "device: CPU, as asked for")
    fault = find_cuda_fault(graph)
    if fault is None:
        return Provider((CUDA, CPU), "device: CUDA")
    if device == "cuda":
        raise ExportError(f"device 'cuda': {fault}")
    return Provider((CPU,), f"device: CPU ({fault})")


def find_cuda_fault(graph: Path) -> str | None:
    """Why a graph cannot be loaded for CUDA, in a few words; None where it can."""
    if CUDA not in onnxruntime.get_available_providers():
        return "the package onnxruntime-gpu is not installed"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told by us
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=[CUDA, CPU])
    except Exception as error:  # its own classes have no common base
        return f"ONNX Runtime: {' '.join(str(error).split())[:200]}"
    if CUDA not in session.get_providers():
        return "ONNX Runtime finds no GPU, or not the CUDA libraries that it is linked with"
    return None
