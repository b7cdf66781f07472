"""The graphs of every size have kernels on an Ascend, some on a GPU; skipped where stand-ins cannot
be built. All blocks of a size are alike: of those but nano two are compiled."""

import re
import sys

import pytest

from ascend.kernel_check import find_faults
from ascend.kernel_check.cuda import PLUGIN, find_plugin, select_cuda_kernels
from ascend.kernel_check.standins import missing_tool
from taichu.config import SIZES

pytestmark = pytest.mark.skipif(
    missing_tool() is not None, reason=f"{missing_tool()} is not there: no stand-ins can be built"
)
needs_plugin = pytest.mark.skipif(
    find_plugin() is None, reason=f"{PLUGIN} is not there: MindSpore's wheel has no CUDA plug-in"
)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """shallow(size): the override that chooses it with two blocks; nano as it is."""
    folder = tmp_path_factory.mktemp("sizes")

    def write(size: str) -> str:
        if size == "nano":
            return "model=nano"
        text = (SIZES / f"{size}.yaml").read_text(encoding="utf-8")
        text, count = re.subn(r"^depth: \d+", "depth: 2", text, flags=re.MULTILINE)
        assert count == 1
        (folder / f"{size}.yaml").write_text(text, encoding="utf-8")
        return f"model={folder / size}.yaml"

    return write


@pytest.mark.parametrize(
    "size, graph",
    [
        *[(size, "step") for size in ("nano", "tiny", "base", "3.8b")],
        *[(size, graph) for size in ("nano", "3.8b") for graph in ("prefill", "decode")],
        ("nano", "codec"),
    ],
)
def test_every_operator_has_a_kernel(select, shallow, size, graph):
    selection = select(graph, shallow(size))
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
    "size, graph, changes",
    [
        ("nano", "step", ["train.recompute=true"]),
        ("tiny", "prefill", []),
        ("base", "decode", []),
        ("nano", "codec", []),
    ],
)
def test_every_operator_has_a_cuda_kernel(shallow, size, graph, changes):
    """In float16 with a loss scale, as a GPU computes."""
    command = [sys.executable, "-m", "taichu.command_line.dry_compile", "GPU", graph, "pretrain"]
    command += [shallow(size), *changes]
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
