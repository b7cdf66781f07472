"""Which kernels a piece of work runs on this device, how often, and how long they take."""

import csv
import re
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import mindspore as ms
from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from ascend.device import DeviceError


@dataclass(frozen=True)
class Kernel:
    """One kernel of a graph, over all its calls.

    Attributes:
        operator: MindSpore's name of what it computes, such as "MatMul"; of a kernel of ours, the
            Cell that calls it, such as "CompiledSwiglu", or "Custom" where no Cell is noted (the
            optimizer's).
        place: where in the network it stands, Cell by Cell, as far as MindSpore notes it.
        calls: how often it ran.
        seconds: of all calls together.
    """

    operator: str
    place: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Table:
    """The table of kernels that MindSpore's profiler leaves for one kind of device.

    Attributes:
        activities: what the profiler is told to look at.
        files: pattern of the table's name.
        operator, place, calls, time: its columns; without one for calls a row is one call.
        unit: seconds of the time's unit.
    """

    activities: tuple[ProfilerActivity, ...]
    files: str
    operator: str
    place: str
    calls: str | None
    time: str
    unit: float

    def read(self, path: Path) -> list[Kernel]:
        """The kernels, the longest first."""
        sums: dict[tuple[str, str], tuple[int, float]] = {}
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                operator, place = row[self.operator], row[self.place]
                if operator == "Custom":
                    cells = re.findall(r"-(\w+)/", place)
                    operator = cells[-1].strip("_").removesuffix("Core") if cells else operator
                calls, seconds = sums.get((operator, place), (0, 0.0))
                calls += int(row[self.calls]) if self.calls else 1
                sums[operator, place] = calls, seconds + float(row[self.time]) * self.unit
        kernels = [Kernel(*names, *figures) for names, figures in sums.items()]
        return sorted(kernels, key=lambda kernel: -kernel.seconds)


# of the three, the CPU's alone could be tried; the others are as MindSpore 2.10 writes them
TABLES = {
    "CPU": Table(
        (ProfilerActivity.CPU,),
        "cpu_op_detail_info_*.csv",
        "op_type",
        "full_op_name",
        "op_occurrences",
        "op_total_time(ms)",
        1e-3,
    ),
    "GPU": Table(
        (ProfilerActivity.CPU, ProfilerActivity.GPU),
        "gpu_op_detail_info_*.csv",
        "op_type",
        "op_full_name",
        "op_occurrences",
        "op_total_time(us)",
        1e-6,
    ),
    "Ascend": Table(
        (ProfilerActivity.CPU, ProfilerActivity.NPU),
        "kernel_details.csv",
        "Type",
        "Name",
        None,
        "Duration(us)",
        1e-6,
    ),
}


class KernelProfiler:
    """Looks at all kernels that run between `start` and `stop`; one at a time in a process.

    Whoever calls these has waited for the results of what ran before: kernels run behind the
    calls that ask for them.

    Args:
        folder: for MindSpore's trace, ``*/ASCEND_PROFILER_OUTPUT/trace_view.json``, which
            MindStudio Insight and Perfetto show, and its tables.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.table = TABLES[ms.get_context("device_target")]

    def start(self):
        """Begin to look."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._before = self._tables()
        with _quiet():
            self._profiler = profile(
                activities=list(self.table.activities),
                start_profile=False,
                on_trace_ready=tensorboard_trace_handler(str(self.folder)),
            )
            self._profiler.start()

    def stop(self) -> list[Kernel]:
        """Write the trace; the kernels, the longest first.

        Raises:
            DeviceError: MindSpore left no table of them.
        """
        with _quiet():
            self._profiler.stop()
        new = [path for path, when in self._tables().items() if self._before.get(path) != when]
        if not new:
            raise DeviceError(f"the profiler left no {self.table.files} in {self.folder}")
        return self.table.read(new[0])

    def _tables(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.rglob(self.table.files)}


@contextmanager
def _quiet():
    with warnings.catch_warnings(), redirect_stdout(StringIO()):  # progress bars of its own
        warnings.simplefilter("ignore")  # of settings that are an NPU's
        yield


def profile_kernels(work: Callable[[], object]) -> list[Kernel]:
    """Run some work once under MindSpore's profiler; the kernels, the longest first.

    What the work compiles should be compiled before. Counts are exact; times include the
    profiler's own, some microseconds a call.

    Args:
        work: returns when all it computes is there.

    Raises:
        DeviceError: MindSpore left no table of kernels.
    """
    with tempfile.TemporaryDirectory() as folder:
        profiler = KernelProfiler(folder)
        profiler.start()
        work()
        return profiler.stop()


def sum_by_operator(kernels: list[Kernel]) -> dict[str, tuple[int, float]]:
    """Operator -> its calls and seconds in all places, the longest first."""
    sums: dict[str, tuple[int, float]] = {}
    for kernel in kernels:
        calls, seconds = sums.get(kernel.operator, (0, 0.0))
        sums[kernel.operator] = calls + kernel.calls, seconds + kernel.seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))
