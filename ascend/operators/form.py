"""The rule that chooses an operator's form, and the way to the compiled kernels."""

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

LIBRARY = next(iter(sorted(Path(__file__).parent.glob("_cpu_kernels*.so"))), None)


def choose_form(plain: type[nn.Cell], compiled: type[nn.Cell], form: str | None, *settings):
    """Build an operator's Cell.

    Args:
        plain, compiled: the Cell's two classes.
        form: "plain", "compiled", or None for the one that suits the current device.
        settings: what the Cell is built with.

    Raises:
        ValueError: ``form`` is none of these, or "compiled" where there is no library.
    """
    if form is None:
        on_cpu = ms.get_context("device_target") == "CPU"
        form = "compiled" if on_cpu and LIBRARY else "plain"
    if form == "plain":
        return plain(*settings)
    if form == "compiled" and LIBRARY:
        return compiled(*settings)
    raise ValueError(f"operator form {form!r} is not there; see `ascend.operators.describe_forms`")


def kernel(name: str, shapes, types) -> ops.Custom:
    """A compiled kernel as a primitive; ``shapes`` and ``types`` map inputs' to outputs'."""
    return ops.Custom(f"{LIBRARY}:{name}", shapes, types, func_type="aot")


def describe_forms() -> str:
    """One line: which form is used, and why."""
    device = ms.get_context("device_target")
    if device != "CPU":
        return f"operators: plain form (device {device})"
    if LIBRARY:
        return "operators: compiled CPU kernels"
    return (
        "operators: plain form, several times slower "
        "(no C++ compiler at installation: reinstall with g++)"
    )
