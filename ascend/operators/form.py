"""The rule that chooses an operator's form, and the way to the compiled kernels."""

import ctypes
import functools
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from ascend.precision import compute_type
from ascend.threads import given_threads

LIBRARY = next(iter(sorted(Path(__file__).parent.glob("_cpu_kernels*.so"))), None)


def choose_form(form: str | None, *settings, **forms: type[nn.Cell]) -> nn.Cell:
    """Build an operator's Cell.

    Args:
        form: "plain", "compiled", "ascend", or None for the one that suits the current device.
        settings: what the Cell is built with.
        forms: the Cell's classes by form; "plain" serves where a device's own is not among them.

    Raises:
        ValueError: ``form`` is none of these, or "compiled" where there is no library.
    """
    if form is None:
        form = device_form()
        form = form if form in forms else "plain"
    if form not in forms or (form == "compiled" and not LIBRARY):
        raise ValueError(
            f"operator form {form!r} is not there; see `ascend.operators.describe_forms`"
        )
    return forms[form](*settings)


_plain_alone: list[bool] = []


@contextmanager
def plain_forms():
    """What is built meanwhile has plain forms, which MindSpore can write to a file."""
    _plain_alone.append(True)
    try:
        yield
    finally:
        _plain_alone.pop()


def device_form() -> str:
    """The form that suits the current device and precision."""
    if _plain_alone:
        return "plain"
    device = ms.get_context("device_target")
    if device == "CPU" and LIBRARY and compute_type() == ms.float32:
        return "compiled"
    return "ascend" if device == "Ascend" else "plain"


def kernel(name: str, shapes, types) -> ops.Custom:
    """A compiled kernel as a primitive; ``shapes`` and ``types`` map inputs' to outputs'."""
    library()
    return ops.Custom(f"{LIBRARY}:{name}", shapes, types, func_type="aot")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels, once they know how many threads they may take."""
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.updates.restype = ctypes.c_int64
    loaded.limit_threads(given_threads() or 0)
    return loaded


def describe_forms() -> str:
    """One line: which form is used, and why."""
    device, form = ms.get_context("device_target"), device_form()
    if form == "compiled":
        return "operators: compiled CPU kernels"
    if form == "ascend":
        return "operators: aclnn kernels"
    if device == "CPU" and not LIBRARY:
        return (
            "operators: plain form, several times slower "
            "(no C++ compiler at installation: reinstall with g++)"
        )
    why = f"device {device}" if device != "CPU" else "the compiled kernels are of float32 alone"
    return f"operators: plain form ({why})"
