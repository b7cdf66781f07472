"""Which device is used: Ascend, then GPU, then CPU, each tried before it is chosen."""

import functools
import glob
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass

from ascend import cuda
from ascend.child import run_child
from ascend.errors import HardwareError

TARGETS = ("Ascend", "GPU", "CPU")
PROBE_SECONDS = 180  # an Ascend's first operator is compiled, which takes a minute

# run in a process of its own: a set_device that fails may leave its process unusable
PROBE = """
import sys, numpy, mindspore
target = sys.argv[1]
mindspore.set_device(target)
if target == "GPU" and mindspore.device_context.gpu.device_count() == 0:
    raise RuntimeError("no GPU is visible; see CUDA_VISIBLE_DEVICES")
for kind in ("float32", "float16") if target == "GPU" else ("float32",):
    ones = mindspore.Tensor(numpy.ones((16, 16), kind))
    if (mindspore.ops.matmul(ones, ones).asnumpy() != 16).any():
        raise RuntimeError(f"a matrix product in {kind} came out wrong")
"""


class DeviceError(HardwareError):
    """The device that was asked for cannot be used; one line says why."""


@dataclass(frozen=True)
class Device:
    """A device in use.

    Attributes:
        target: "Ascend", "GPU" or "CPU".
        reason: one line: why this one, and why none before it.
    """

    target: str
    reason: str


def choose_device(name: str = "auto") -> Device:
    """Choose a device and set it for this process.

    Args:
        name: "auto", or "Ascend", "GPU" or "CPU" in any case.

    Raises:
        DeviceError: the named device is unknown, not there or does not work.
    """
    known = {target.lower(): target for target in TARGETS}
    if name.lower() != "auto":
        if name.lower() not in known:
            raise DeviceError(f"unknown device {name!r}; there are auto, {', '.join(TARGETS)}")
        target = known[name.lower()]
        works, reason = check_device(target)
        if not works:
            raise DeviceError(f"{target} cannot be used: {reason}; --device auto takes what works")
        set_device(target)
        return Device(target, f"{target}: asked for")
    refused = []
    for target in TARGETS:
        works, reason = check_device(target)
        if works:
            set_device(target)
            return Device(target, f"{target}: {', '.join(refused + [reason] * bool(reason))}")
        refused.append(reason)
    raise DeviceError("; ".join(refused))


@functools.cache
def check_device(target: str) -> tuple[bool, str]:
    """Whether a device works, and a phrase that says why (not). A CPU is taken to work."""
    if target == "CPU":
        return True, ""
    sign = find_sign(target)
    if sign is None:
        return False, f"no {'/dev/davinci*' if target == 'Ascend' else '/dev/nvidia*'}"
    failure = (target == "GPU" and cuda.find_obstacle()) or probe(target)
    if failure:
        return False, f"{target} ({sign}) does not work: {failure}"
    return True, f"{sign} is there and computes"


def find_sign(target: str) -> str | None:
    """What hints at an Ascend or a GPU on this machine, at no cost; None where nothing does."""
    if target == "Ascend":
        nodes, variables, program = "/dev/davinci[0-9]*", ("ASCEND_HOME_PATH",), "npu-smi"
    else:
        nodes, variables, program = "/dev/nvidia[0-9]*", ("CUDA_HOME",), "nvidia-smi"
    found = sorted(glob.glob(nodes))
    found += [f"${variable}" for variable in variables if os.environ.get(variable)]
    found += [program] if shutil.which(program) else []
    return found[0] if found else None


def probe(target: str) -> str | None:
    """Set the device and multiply two matrices in another process; what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:  # MindSpore leaves files where it runs
        result = run_child([sys.executable, "-c", PROBE, target], PROBE_SECONDS, folder)
    if result.code is None:
        return f"no answer within {PROBE_SECONDS} s"
    if result.code == 0:
        return None
    if result.code < 0:
        return f"ended by signal {-result.code}"
    libraries = rf"Load dynamic library: (\S*{target.lower()}\S* failed\. .*)"
    unloaded = re.findall(libraries, result.error)
    if unloaded:  # says more than the exception
        return unloaded[0]
    _, *raised = re.split(r"^\w*(?:Error|Exception):", result.error, flags=re.MULTILINE)
    # MindSpore may put rules and headings ("- Cuda error:") before what it has to say
    lines = re.findall(r"^(?!- |-+$) *(.*\w.*)$", raised[-1], re.MULTILINE) if raised else []
    message = lines[0] if lines else f"exit code {result.code}"
    return re.split(r"(?<=[.;]) ", message)[0].rstrip(".;")


def set_device(target: str):
    """Set a device of `TARGETS` for this process, untried.

    Raises:
        DeviceError: the process already computes on another.
    """
    import mindspore

    from ascend.operators.gradient_sum import sum_gradients_by_add

    try:
        mindspore.set_device(target)
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise DeviceError(f"{target} cannot be set: {line}") from None
    if target == "Ascend":
        sum_gradients_by_add()
