"""Memory that may be taken on the device in use."""

import mindspore as ms
import psutil


def free_memory() -> int:
    """Bytes: of this machine where the CPU computes, else of the device that is set."""
    target = ms.get_context("device_target")
    if target == "CPU":
        return psutil.virtual_memory().available
    total = ms.hal.get_device_properties(0, target).total_memory
    return int(total) - ms.hal.memory_reserved(target)
