"""The check of kernels on GPUs: networks that pass, that fail and that leave the GPU."""

import pytest

from ascend.kernel_check import Selection, find_faults
from ascend.kernel_check.cuda import PLUGIN, find_plugin, read_log, select_cuda_kernels
from ascend.kernel_check.standins import missing_tool

needs_plugin = pytest.mark.skipif(
    missing_tool() is not None or find_plugin() is None,
    reason=f"{missing_tool() or PLUGIN} is not there: no stand-ins of CUDA can be built",
)


@pytest.fixture
def select(write_network):
    """The selection for a network that is one expression in x."""

    def run(expression: str) -> Selection:
        return select_cuda_kernels(write_network("GPU", expression))

    return run


@needs_plugin
def test_an_operator_without_a_kernel_is_taken_apart_or_fails(select):
    selection = select("ops.sum(ops.BatchMatMul()(x[None], x[None]), -1)")
    assert find_faults(selection) == []
    assert selection.kernels["BatchMatMul", "cuda"] == 1
    assert selection.kernels["ReduceSum", "cuda"] == 1  # of SumExt, which has none
    assert "SumExt" not in {operator for operator, _ in selection.kernels}


@needs_plugin
@pytest.mark.parametrize(
    "expression, fault",
    [
        ("ops.rms_norm(x, x[0])", "RmsNorm (1 node): MindSpore selects no kernel"),
        ("ops.swiglu(x)", "Swiglu (1 node): MindSpore selects no kernel"),
        ("ops.fmax(x, x)", "Fmax (1 node): runs on cpu, not on the chip"),
        # by the types: there is a product, but not of whole numbers or bfloat16
        ("ops.MatMul()(x.astype(ms.int32), x.astype(ms.int32))", "MatMul (1 node): runs on cpu"),
        ("ops.MatMul()(*[x.astype(ms.bfloat16)] * 2)", "MatMul (1 node): MindSpore selects no"),
    ],
)
def test_a_network_that_a_gpu_would_not_run_fails(select, expression, fault):
    faults = find_faults(select(expression))
    assert any(line.startswith(fault) for line in faults), faults


LINE = "[INFO] DEVICE(1,7f,python):2026 [mindspore/x.cc:1] "


def test_a_log_is_read_node_by_node():
    asked = "SetKernelInfoWithMsg] {}-op{} kernel attr info: input[Tensor Float32 DefaultFormat,]"
    lines = [
        LINE + asked.format("Default/net/Mul", 0),
        LINE + asked.format("Default/net/SumExt", 0),
        LINE + asked.format("Expand/_SumExt/ReduceSum", 0),
        LINE + "SetOperatorInfo] Unsupported op [SumExt] on GPU, Please confirm",
        LINE + asked.format("Default/Fmax", 1),
        LINE + "SetBackoffInfo] GPU doesn't support the kernel Fmax and will try to backoff",
        LINE + "Backoff and rebuild kernel on CPU successfully for node: Default/Fmax-op1, node",
        LINE + asked.format("Default/Swiglu", 0),
        LINE + "HandleKernelSelectFailure] Unsupported op [Swiglu] on GPU, Please confirm",
        "RuntimeError: ",
        "- Kernel select failed:",
    ]
    selection, raised = read_log(lines)
    assert raised == "RuntimeError" and selection.kernels == {
        ("Mul", "cuda"): 1,
        ("ReduceSum", "cuda"): 1,
        ("Fmax", "cpu"): 1,
        ("Swiglu", "none"): 1,
    }
