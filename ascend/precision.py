"""The number type that matrix products are computed in, by device.

Weights and moments are float32 on every device; norms, softmax and losses compute in float32. What
runs in the compute type are matrix products and what passes between them (Micikevicius et al.,
1710.03740).
"""

import ctypes

import mindspore as ms

from ascend.errors import HardwareError

TYPES = {"float32": ms.float32, "bfloat16": ms.bfloat16, "float16": ms.float16}
WITH_BFLOAT16 = ("Ascend910B", "Ascend910_9")  # Atlas A2 and A3; older chips have float16 only

_chosen: dict[str, ms.Type] = {}


class PrecisionError(HardwareError):
    """The number type that was asked for is unknown or not there on this device."""


def chip() -> str:
    """Name of this machine's Ascend chip, as "Ascend910B2"; empty where another device is set."""
    if ms.get_context("device_target") != "Ascend":
        return ""
    library = ctypes.CDLL("libascendcl.so")  # CANN's, which MindSpore has loaded
    library.aclrtGetSocName.restype = ctypes.c_char_p
    return (library.aclrtGetSocName() or b"").decode()


def has_bfloat16() -> bool:
    """Whether the device in use computes in bfloat16."""
    return chip().startswith(WITH_BFLOAT16)


def choose_precision(name: str = "auto") -> str:
    """Choose the compute type of what is built from now on; returns a line that says which and why.

    Args:
        name: "auto", "float32", "bfloat16" or "float16". "auto" is bfloat16 on Ascend 910B and
            later, float16 on older Ascends and on GPUs, float32 on CPUs.

    Raises:
        PrecisionError: unknown, or the device has no kernels for it.
    """
    device = ms.get_context("device_target")
    best = _best(device)
    if name == "auto":
        _chosen["type"] = TYPES[best]
        return f"precision: {best} (the best of {chip() or device})"
    if name not in TYPES:
        raise PrecisionError(f"precision {name!r} is unknown; there are auto, {', '.join(TYPES)}")
    if name == "bfloat16" and best != "bfloat16":
        raise PrecisionError(f"precision bfloat16 is not there on {chip() or device}; take {best}")
    _chosen["type"] = TYPES[name]
    return f"precision: {name} (asked for)"


def compute_type() -> ms.Type:
    """The type chosen; float32 where none was."""
    return _chosen.get("type", ms.float32)


def _best(device: str) -> str:
    if device == "CPU":
        return "float32"
    return "bfloat16" if has_bfloat16() else "float16"
