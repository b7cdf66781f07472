"""Which kernel MindSpore would run each operator of a graph with on an Ascend, found without one.

MindSpore's own Ascend plug-in is loaded over stand-ins of CANN's libraries (`standins`), compiles
the graphs of a child process with its own kernel selection, and says in its log what it selects
(`selection`); `verdict` holds that against what may be. `cuda` does the same for GPUs.

It proves that every operator has a kernel registered for Ascend, which one, and that shapes and
types pass MindSpore's own checks. It proves nothing of numbers, of memory, or of what CANN's
kernels refuse by themselves: those limits are in CANN, which is not there.
"""

from ascend.kernel_check.selection import Selection, select_kernels
from ascend.kernel_check.verdict import find_faults

__all__ = ["Selection", "find_faults", "select_kernels"]
