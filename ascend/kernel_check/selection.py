"""The kernels that MindSpore selects for the graphs that a child process compiles."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field

from ascend.kernel_check.standins import CHIP, build_standins, environment

KERNELS = {
    "opapi_kernel": "aclnn",
    "acl_kernel": "aclop",  # legacy, compiled from an operator's description when it first runs
    "hccl_kernel": "hccl",
    "host_kernel": "host",  # of shapes and views alone: nothing runs on the chip
    "rt_kernel": "runtime",
    "internal_kernel": "internal",
    "aicpu_kernel": "aicpu",
}
WAITS = ("StreamSend", "StreamRecv")  # of one stream for another: no kernels
SECONDS = 1200  # the longest a child may take

BUILT = re.compile(r"GenerateKernelMod\] kernel opname:(\w+), kernel type:(\w+)")
CHOSEN = re.compile(r"CollectOpSelectedType\] (\w+) select (\w+) kernel")
ON_CPU = re.compile(r"Backoff and rebuild kernel on CPU successfully for node: \S*?(\w+)-op\d+")
ORDER = re.compile(r"PrintGraphExecuteOrder\] Index\[\d+\], node name\[\S*?(\w+)-op\d+\]")
RAISED = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception)): ?(.*)")


@dataclass
class Selection:
    """What MindSpore selected for one graph.

    Attributes:
        kernels: (operator, kernel) -> how many nodes; the kernel is one of `KERNELS`' values,
            "cpu" (moved to the host's processor) or "none" (nothing was said of it).
        failure: one line, where the child ended before its graph was whole.
    """

    kernels: Counter = field(default_factory=Counter)
    failure: str | None = None

    @property
    def count(self) -> int:
        return sum(self.kernels.values())


def select_kernels(
    command: list[str], chip: str = CHIP, rank: int = 0, ranks: int = 1, cache=None
) -> Selection:
    """Run a command under the stand-ins, and read what MindSpore selects for all it compiles.

    Args:
        command: of a process that sets the device "Ascend", compiles its graphs, and exits.
        chip: as CANN names it, such as "Ascend910B2".
        rank, ranks: the place of the process among those that would run together.
        cache: of `build_standins`.

    Raises:
        StandInError: the stand-ins cannot be built here.
    """
    variables = environment(build_standins(cache), chip, rank, ranks)
    with tempfile.TemporaryDirectory() as work:  # MindSpore leaves files where it runs
        child = subprocess.Popen(
            command,
            cwd=work,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            with child.stdout:
                selection, raised = read_log(child.stdout)
            code = child.wait(SECONDS)
        finally:
            child.kill()
    if code:
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        selection.failure = raised or how
    return selection


def read_log(lines) -> tuple[Selection, str | None]:
    """What a log at level INFO says of kernels, and the last error that it shows."""
    built, chosen, order, raised = Counter(), {}, Counter(), None
    for line in lines:
        if found := BUILT.search(line):
            built[found[1], KERNELS.get(found[2], found[2])] += 1
        elif found := CHOSEN.search(line):
            chosen[found[1]] = found[2]
        elif found := ON_CPU.search(line):
            built[found[1], "cpu"] += 1
        elif found := ORDER.search(line):
            order[found[1]] += found[1] not in WAITS
        elif (found := RAISED.match(line)) and "No module named 'te'" not in line:
            raised = f"{found[1]}: {found[2]}".strip()
    # a child that ends early has chosen, but not built
    known = Counter()
    for (operator, _), count in built.items():
        known[operator] += count
    for operator, kernel in chosen.items():
        if not known[operator]:
            built[operator, kernel] = max(1, order[operator])
            known[operator] = built[operator, kernel]
    for operator, count in order.items():
        if count > known[operator]:
            built[operator, "none"] += count - known[operator]
    return Selection(built), raised


def module_command(python: str, module: str, *arguments: str) -> list[str]:
    """The command that runs a module, for `select_kernels`."""
    return [python, "-m", module, *arguments]
