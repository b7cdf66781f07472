"""Which kernels a piece of work runs on this device, how often, and how long they take."""

import csv
import re
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
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


def profile_kernels(work: Callable[[], object]) -> list[Kernel]:
    """Run some work once under MindSpore's profiler; the kernels, the longest first.

    What the work compiles should be compiled before. Counts are exact; times include the
    profiler's own, some microseconds a call.

    Raises:
        DeviceError: on another device than the CPU, whose profiles are kept in another form.
    """
    device = ms.get_context("device_target")
    if device != "CPU":
        raise DeviceError(f"kernels can be profiled on the CPU, not on {device}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings that are an NPU's
        with redirect_stdout(StringIO()):  # progress bars of its own
            profiler = profile(
                activities=[ProfilerActivity.CPU],
                start_profile=False,
                on_trace_ready=tensorboard_trace_handler(folder),
            )
            profiler.start()
            work()
            profiler.stop()
        tables = list(Path(folder).rglob("cpu_op_detail_info_*.csv"))
        if not tables:
            raise DeviceError("the profiler left no table of kernels")
        with tables[0].open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
    kernels = [_kernel(row) for row in rows]
    return sorted(kernels, key=lambda kernel: -kernel.seconds)


def _kernel(row: dict[str, str]) -> Kernel:
    operator, place = row["op_type"], row["full_op_name"]
    if operator == "Custom":
        cells = re.findall(r"-(\w+)/", place)
        operator = cells[-1].strip("_").removesuffix("Core") if cells else operator
    seconds = float(row["op_total_time(ms)"]) / 1e3
    return Kernel(operator, place, int(row["op_occurrences"]), seconds)
