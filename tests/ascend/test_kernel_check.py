"""The check of kernels: small networks that pass and that fail, and how a log is read."""

from collections import Counter

import pytest

from ascend.kernel_check import Selection, find_faults, select_kernels
from ascend.kernel_check.selection import read_log
from ascend.kernel_check.standins import build_standins, missing_tool

needs_tools = pytest.mark.skipif(
    missing_tool() is not None, reason=f"{missing_tool()} is not there: no stand-ins can be built"
)


@pytest.fixture
def select(write_network):
    """The selection for a network that is one expression in x."""

    def run(expression: str) -> Selection:
        return select_kernels(write_network("Ascend", expression))

    return run


@needs_tools
def test_a_network_of_aclnn_kernels_passes(select):
    selection = select("mint.sum(ops.matmul(x, x) + x, -1)")
    assert selection.kernels["SumExt", "aclnn"] == 1 and selection.failure is None
    assert find_faults(selection) == []


@needs_tools
@pytest.mark.parametrize(
    "expression, fault",
    [
        ("ops.addn((x, x))", "AddN (1 node): legacy kernel (aclop)"),
        ("ops.gather(x, ops.arange(2), 0)", "Gather (1 node): legacy kernel (aclop)"),
        ("ops.matmul(x, ops.ones((3, 3)))", "the graph was not compiled: RuntimeError"),
        ("ops.TripletMarginLoss()(x, x, x, ms.Tensor(1.0))", "the graph was not compiled"),
    ],
)
def test_a_network_that_would_not_run_well_fails(select, expression, fault):
    faults = find_faults(select(expression))
    assert any(line.startswith(fault) for line in faults), faults


@needs_tools
def test_stand_ins_are_built_once():
    folder = build_standins()
    before = folder.stat().st_mtime_ns
    assert build_standins() == folder and folder.stat().st_mtime_ns == before
    assert (folder / "cann" / "lib64" / "libascendcl.so").is_file()


LINE = "[INFO] DEVICE(1,7f,python):2026 [mindspore/x.cc:1] "


def test_a_log_is_read_node_by_node():
    order = "PrintGraphExecuteOrder] Index[{}], node name[Default/net/{}-op{}], logic id[1]"
    lines = [
        LINE + "CollectOpSelectedType] Mul select aclnn kernel",
        LINE + "GenerateKernelMod] kernel opname:Mul, kernel type:opapi_kernel",
        LINE + "GenerateKernelMod] kernel opname:Mul, kernel type:opapi_kernel",
        LINE + "GenerateKernelMod] kernel opname:AllReduce, kernel type:hccl_kernel",
        LINE + "Backoff and rebuild kernel on CPU successfully for node: Default/a/Fmax-op0",
        LINE + order.format(0, "Mul", 0),
        LINE + order.format(1, "Mul", 1),
        LINE + order.format(2, "AllReduce", 0),
        LINE + order.format(3, "Fmax", 0),
        LINE + order.format(4, "Mystery", 0),
        "something else",
    ]
    selection, raised = read_log(lines)
    assert raised is None and selection.kernels == {
        ("Mul", "aclnn"): 2,
        ("AllReduce", "hccl"): 1,
        ("Fmax", "cpu"): 1,
        ("Mystery", "none"): 1,
    }
    assert find_faults(selection) == [
        "Fmax (1 node): runs on cpu, not on the chip",
        "Mystery (1 node): MindSpore selects no kernel",
    ]


def test_a_child_that_fails_has_chosen_what_it_has_not_built():
    lines = [
        LINE + "CollectOpSelectedType] AddN select aclop kernel",
        "ModuleNotFoundError: No module named 'te'",
        "RuntimeError: aclopCreateAttr is null.",
    ]
    selection, raised = read_log(lines)
    assert raised == "RuntimeError: aclopCreateAttr is null."
    assert selection.kernels == {("AddN", "aclop"): 1}


def test_nothing_compiled_is_a_fault():
    assert find_faults(Selection()) == ["no graph was compiled"]
    allowed = Selection(Counter({("TensorMove", "aclop"): 3, ("Add", "aclnn"): 1}))
    assert find_faults(allowed) == []
