"""Kernels are counted and placed as they ran, and a trace is left."""

import csv
import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from mindspore.profiler.analysis.viewer.ascend_kernel_details_viewer import (
    AscendKernelDetailsViewer,
)
from mindspore.profiler.common.constant import OpSummaryHeaders

from ascend import operators
from ascend.device import DeviceError
from ascend.operators.form import LIBRARY
from ascend.profile import TABLES, Kernel, KernelProfiler, profile_kernels, sum_by_operator

pytestmark = pytest.mark.usefixtures("cpu")


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.eye(4, dtype=np.float32))
        self.matmul = ops.MatMul()
        self.swiglu = operators.swiglu()

    def construct(self, x_N4):
        y_N4 = self.matmul(x_N4, self.weight)
        return ops.sin(self.swiglu(y_N4, self.matmul(y_N4, self.weight)))


def test_counts_of_a_forward_pass():
    step, x = ms.jit(Network().construct), ms.Tensor(np.ones((3, 4), np.float32))
    step(x)
    kernels = profile_kernels(lambda: [step(x).asnumpy() for _ in range(3)])
    counts = {operator: calls for operator, (calls, _) in sum_by_operator(kernels).items()}
    assert counts["MatMul"] == 6 and counts["Sin"] == 3
    if LIBRARY:
        assert sum(counts.values()) == 12
        assert counts.get("Custom", 0) + counts.get("CompiledSwiglu", 0) == 3
    assert all(kernel.seconds > 0 for kernel in kernels)
    assert [k.seconds for k in kernels] == sorted((k.seconds for k in kernels), reverse=True)


def test_two_profiles_in_one_folder(tmp_path):
    """Each has its own trace and reads its own table."""
    step, x = ms.jit(Network().construct), ms.Tensor(np.ones((3, 4), np.float32))
    step(x).asnumpy()
    for number in (1, 2):
        profiler = KernelProfiler(tmp_path / "new")
        profiler.start()
        for _ in range(number):
            step(x).asnumpy()
        assert sum_by_operator(profiler.stop())["Sin"][0] == number
    traces = sorted((tmp_path / "new").glob("*/ASCEND_PROFILER_OUTPUT/trace_view.json"))
    events = [json.loads(trace.read_text()) for trace in traces]
    assert [sum("Sin" in event["name"] for event in trace) for trace in events] == [1, 2]


def test_a_profiler_that_leaves_no_table_is_an_error(tmp_path, monkeypatch):
    profiler = KernelProfiler(tmp_path)
    profiler.start()
    monkeypatch.setattr(profiler, "_tables", dict)
    with pytest.raises(DeviceError, match=r"the profiler left no cpu_op_detail_info_\*.csv in "):
        profiler.stop()


def test_sums_are_by_operator_and_the_longest_first():
    kernels = [Kernel("a", "x", 1, 0.5), Kernel("b", "x", 2, 0.75), Kernel("a", "y", 3, 0.5)]
    assert list(sum_by_operator(kernels).items()) == [("a", (4, 1.0)), ("b", (2, 0.75))]


def test_the_table_of_an_ascend(tmp_path):
    """Its columns are those that the installed MindSpore writes; a row is one call."""
    viewer, headers = AscendKernelDetailsViewer, list(OpSummaryHeaders)
    names = [viewer.RENAME_HEADERS.get(header.value, header.value) for header in headers]
    path = tmp_path / viewer.KERNEL_DETAILS_FILE_NAME
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names, restval="0")
        table.writeheader()
        for kind, name, microseconds in (
            ("MatMulV3", "a/MatMul", "2.5"),
            ("RmsNorm", "b/RmsNorm", "4.25\t"),  # as it is written where a spreadsheet may read it
            ("MatMulV3", "a/MatMul", "1.5"),
        ):
            table.writerow({"Type": kind, "Name": name, "Duration(us)": microseconds})
    (found,) = tmp_path.rglob(TABLES["Ascend"].files)
    assert TABLES["Ascend"].read(found) == [
        Kernel("RmsNorm", "b/RmsNorm", 1, pytest.approx(4.25e-6)),
        Kernel("MatMulV3", "a/MatMul", 2, pytest.approx(4e-6)),
    ]


def test_the_table_of_a_gpu(tmp_path):
    """Its columns stand in the installed MindSpore's library."""
    library = Path(ms.__file__).parent / "lib" / "libmindspore_profiler.so"
    start = b"op_side,op_type,op_name,op_full_name,"
    (line,) = [line for line in library.read_bytes().split(b"\0") if line.startswith(start)]
    path = tmp_path / "gpu_op_detail_info_0.csv"
    row = "Device,MatMul,MatMul-op1,Default/MatMul-op1,3,120.5,40.2,0.9,118.0,3"
    path.write_text(f"{line.decode().strip()}\n{row}\n")
    (found,) = tmp_path.rglob(TABLES["GPU"].files)
    expected = Kernel("MatMul", "Default/MatMul-op1", 3, pytest.approx(120.5e-6))
    assert TABLES["GPU"].read(found) == [expected]
