"""The graphs of every size have kernels on an Ascend, nano's on a GPU; skipped where stand-ins
cannot be built."""

import re
import sys

import pytest

from ascend.kernel_check import find_faults
from ascend.kernel_check.cuda import PLUGIN, find_plugin, select_cuda_kernels
from ascend.kernel_check.standins import missing_tool

pytestmark = pytest.mark.skipif(
    missing_tool() is not None, reason=f"{missing_tool()} is not there: no stand-ins can be built"
)
needs_plugin = pytest.mark.skipif(
    find_plugin() is None, reason=f"{PLUGIN} is not there: MindSpore's wheel has no CUDA plug-in"
)


@pytest.mark.parametrize(
    "size, graph",
    [
        *[(s, g) for s in ("nano", "tiny", "base", "3.8b") for g in ("step", "prefill", "decode")],
        ("nano", "codec"),
    ],
)
def test_every_operator_has_a_kernel(select, size, graph):
    selection = select(graph, f"model={size}")
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    expected = {"RmsNorm", "RotaryPositionEmbedding", "Swiglu", "MatMul"}
    if graph != "decode":
        expected.add("FlashAttentionScore")
    if graph in ("step", "codec"):
        expected |= {"FlashAttentionScoreGrad", "RmsNormGrad", "SwigluGrad", "AdamW"}
    assert expected <= kernels


@needs_plugin
@pytest.mark.parametrize(
    "graph, change",
    [
        ("step", "train.recompute=true"),
        ("prefill", "model=tiny"),
        ("decode", "model=base"),
        ("codec", "model=nano"),
    ],
)
def test_every_operator_has_a_cuda_kernel(graph, change):
    """In float16 with a loss scale, as a GPU computes."""
    command = [
        sys.executable,
        "-m",
        "taichu.command_line.dry_compile",
        "GPU",
        graph,
        "pretrain",
        change,
    ]
    selection = select_cuda_kernels(command)
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    expected = {"MatMul", "BatchMatMul", "Softmax", "SiLU", "Pow", "ReduceSum"}
    if graph in ("step", "codec"):
        expected |= {"SiLUGrad", "Select", "Assign", "IsFinite"}  # the last three of the update
    assert expected <= kernels


def test_the_command(taichu):
    result = taichu("ascend", "check", "pretrain", "--graph", "decode")
    assert result.code == 0 and re.search(r"^Swiglu +aclnn +4$", result.out, re.MULTILINE)
    assert "of 1 graphs have a kernel on Ascend910B2" in result.out
    result = taichu("ascend", "check", "pretrain", "--graph", "encode")
    assert result.code == 1 and "--graph encode: unknown; there are step" in result.error


@needs_plugin
def test_the_command_for_a_gpu(taichu):
    result = taichu("ascend", "check", "pretrain", "--graph", "decode", "--chip", "GPU")
    assert result.code == 0 and re.search(r"^SiLU +cuda +4$", result.out, re.MULTILINE)
    assert "of 1 graphs have a kernel on GPU" in result.out
    result = taichu("ascend", "check", "pretrain", "--chip", "GPU", "--devices", "2")
    assert result.code == 1 and "with --chip GPU there is one" in result.error
