"""The graphs of every size have kernels on an Ascend, nano's on a GPU; skipped where stand-ins
cannot be built."""

import re
import sys

import pytest

from ascend.kernel_check import find_faults, select_kernels
from ascend.kernel_check.cuda import PLUGIN, find_plugin, select_cuda_kernels
from ascend.kernel_check.standins import missing_tool
from taichu.config import SIZES

pytestmark = pytest.mark.skipif(
    missing_tool() is not None, reason=f"{missing_tool()} is not there: no stand-ins can be built"
)
needs_plugin = pytest.mark.skipif(
    find_plugin() is None, reason=f"{PLUGIN} is not there: MindSpore's wheel has no CUDA plug-in"
)


def select(graph: str, *overrides: str, **settings):
    command = [sys.executable, "-m", "taichu.dry_compile", "Ascend", graph, "pretrain", *overrides]
    return select_kernels(command, **settings)


@pytest.mark.parametrize(
    "size, graph",
    [
        *[(s, g) for s in ("nano", "tiny", "base", "3.8b") for g in ("step", "prefill", "decode")],
        ("nano", "codec"),
    ],
)
def test_every_operator_has_a_kernel(size, graph):
    selection = select(graph, f"model={size}")
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    expected = {"RmsNorm", "RotaryPositionEmbedding", "Swiglu", "MatMul"}
    if graph != "decode":
        expected.add("FlashAttentionScore")
    if graph in ("step", "codec"):
        expected |= {"FlashAttentionScoreGrad", "RmsNormGrad", "SwigluGrad", "AdamW"}
    assert expected <= kernels


@pytest.mark.parametrize("chip", ["Ascend910A", "Ascend310P3"])
def test_older_chips_compute_in_float16_without_the_flash_kernel(chip):
    selection = select("step", chip=chip)
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    assert "BatchMatMul" in kernels and "FlashAttentionScore" not in kernels


@pytest.mark.parametrize("change", ["train.recompute=true", "train.accumulate=2"])
def test_other_ways_of_training(change):
    assert find_faults(select("step", change)) == []


# nano: 63 trained parameters, of them 35 matrices whose rows 8 ranks can share; 4 blocks
PARAMETERS, BLOCKS = 63, 4
ALIGNMENT = {"AllGather": 4, "ReduceScatter": 2, "AllReduce": 1}


def collectives(selection) -> dict[str, int]:
    return {o: n for (o, kernel), n in selection.kernels.items() if kernel == "hccl"}


@pytest.mark.parametrize("rank", range(8))
def test_data_ranks_reduce_each_gradient_once(rank):
    """And gather both sides' embeddings, their groups and captions; and the number of pairs."""
    selection = select("step", rank=rank, ranks=8)
    assert find_faults(selection) == []
    assert collectives(selection) == {**ALIGNMENT, "AllReduce": PARAMETERS + 1}


@pytest.mark.parametrize("rank", [0, 5])
def test_tensor_and_sequence_ranks_exchange_what_a_block_needs(rank):
    matrix = "parallel.tensor=2", "parallel.sequence=2"
    selection = select("step", *matrix, rank=rank, ranks=8)
    assert find_faults(selection) == []
    found = collectives(selection)
    # query, key, value and output, there and back
    assert found["AllToAll"] == 8 * BLOCKS
    # forward and backward of both halves of a block, gains of queries and keys, the norm's sum
    within = 6 * BLOCKS + 1
    assert found["AllReduce"] == PARAMETERS + 1 + within
    assert found["AllGather"] == ALIGNMENT["AllGather"] + 1  # of the hidden states
    assert found["ReduceScatter"] == ALIGNMENT["ReduceScatter"] + 1


@pytest.mark.parametrize("rank, held", [(0, 14 + 11), (3, 11), (6, 11 + 5)])
def test_stages_send_to_their_neighbours(rank, held):
    """Of four stages with two data ranks each: the first, the second and the last."""
    keys = "parallel.pipeline=4", "train.accumulate=2"
    selection = select("step", *keys, rank=rank, ranks=8)
    assert find_faults(selection) == []
    neighbours, last = 2 if rank == 3 else 1, rank == 6
    # gradients once an update, the norm's sum, and what is told of the loss
    expected = {"AllReduce": held + 2, "Send": neighbours, "Receive": neighbours}
    if last:
        expected = {**ALIGNMENT, **expected, "AllReduce": held + 3}
    assert collectives(selection) == expected


@pytest.mark.parametrize("shard", ["optimizer", "parameters"])
def test_shards_are_scattered_and_gathered(shard):
    found = collectives(select("step", f"parallel.shard={shard}", rank=3, ranks=8))
    shared = found["ReduceScatter"] - ALIGNMENT["ReduceScatter"]
    assert shared == found["AllGather"] - ALIGNMENT["AllGather"] > 30
    # the other gradients, the number of pairs, the norm's sum
    assert found["AllReduce"] == PARAMETERS - shared + 2


@pytest.fixture
def mixture(tmp_path):
    """nano, with eight experts in each block; its override."""
    path = tmp_path / "mixture.yaml"
    path.write_text((SIZES / "nano.yaml").read_text(encoding="utf-8") + "experts: 8\n")
    return f"model={path}"


@pytest.mark.parametrize("graph", ["step", "prefill", "decode"])
def test_experts_have_kernels(mixture, graph):
    selection = select(graph, mixture)
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    assert {"TopkExt", "CumsumExt", "IndexAddExt", "IndexSelect", "BatchMatMul"} <= kernels


def test_experts_have_kernels_on_older_chips(mixture):
    assert find_faults(select("step", mixture, chip="Ascend310P3")) == []


# of each block the router and its balance, and of 8 experts three matrices as of one
ROUTERS, EXPERTS = 2 * BLOCKS, 3 * BLOCKS


@pytest.mark.parametrize("size, reduced", [(2, EXPERTS), (8, 0)])
def test_ranks_that_share_experts_swap_their_rows(mixture, size, reduced):
    """There and back, forward and backward; experts are reduced where several hold the same."""
    selection = select("step", mixture, f"parallel.expert={size}", rank=3, ranks=8)
    assert find_faults(selection) == []
    others = PARAMETERS + ROUTERS - EXPERTS
    # and the number of pairs, the norm's sum
    counts = {"AllReduce": others + reduced + 2, "AllToAll": 4 * BLOCKS}
    assert collectives(selection) == {**ALIGNMENT, **counts}


def test_experts_under_tensor_and_sequence_ranks(mixture):
    matrix = "parallel.tensor=2", "parallel.sequence=2", "parallel.expert=2", "train.recompute=true"
    selection = select("step", mixture, *matrix, rank=5, ranks=8)
    assert find_faults(selection) == []
    # queries, keys, values and output, and rows twice; there, again, and back
    assert collectives(selection)["AllToAll"] == 3 * (4 + 2) * BLOCKS


@needs_plugin
@pytest.mark.parametrize(
    "graph, change",
    [
        ("step", "train.accumulate=2"),
        ("step", "train.recompute=true"),
        ("step", "model=tiny"),
        ("prefill", "model=nano"),
        ("decode", "model=3.8b"),
        ("codec", "model=nano"),
    ],
)
def test_every_operator_has_a_cuda_kernel(graph, change):
    """In float16 with a loss scale, as a GPU computes."""
    command = [sys.executable, "-m", "taichu.dry_compile", "GPU", graph, "pretrain", change]
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
