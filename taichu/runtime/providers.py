"""Which processor ONNX Runtime computes on."""

from dataclasses import dataclass

import numpy as np
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


def choose_provider(device: str = "auto") -> Provider:
    """CUDA where it works, else the CPU; or the one that is asked for.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        ExportError: another word, or CUDA is asked for and does not work.
    """
    if device not in DEVICES:
        raise ExportError(f"device {device!r}: must be one of {', '.join(DEVICES)}")
    if device == "cpu":
        return Provider((CPU,), "device: CPU, as asked for")
    fault = find_cuda_fault()
    if fault is None:
        return Provider((CUDA, CPU), "device: CUDA")
    if device == "cuda":
        raise ExportError(f"device 'cuda': {fault}")
    return Provider((CPU,), f"device: CPU ({fault})")


def find_cuda_fault() -> str | None:
    """Why CUDA cannot be used, in a few words; None where it can: one graph is run on it."""
    if CUDA not in onnxruntime.get_available_providers():
        return "the package onnxruntime-gpu is not installed"
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        "try",
        [value("x", TensorProto.FLOAT, [2, 2])],
        [value("y", TensorProto.FLOAT, [2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is told by us
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CUDA])
        if CUDA not in session.get_providers():
            return "ONNX Runtime finds no GPU, or not the CUDA libraries that it is linked with"
        session.run(None, {"x": np.eye(2, dtype=np.float32)})
    except Exception as error:
        return f"ONNX Runtime: {' '.join(str(error).split())[:200]}"
    return None
