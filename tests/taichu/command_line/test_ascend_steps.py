"""The step of every rank has kernels on an Ascend, and just the collectives that its place on the
device matrix needs; other chips and ways of training. Skipped where stand-ins cannot be built."""

from pathlib import Path

import pytest

from ascend.kernel_check import find_faults
from ascend.kernel_check.standins import missing_tool
from taichu.config import SIZES

pytestmark = pytest.mark.skipif(
    missing_tool() is not None, reason=f"{missing_tool()} is not there: no stand-ins can be built"
)

# of nano's 63 trained parameters 11 are a block's; here it has one block
READING, OF_BLOCK, OF_LOSSES, BLOCKS = 14, 11, 5, 1
PARAMETERS = READING + BLOCKS * OF_BLOCK + OF_LOSSES
ALIGNMENT = {"AllGather": 4, "ReduceScatter": 2, "AllReduce": 1}


@pytest.fixture(scope="module")
def size(tmp_path_factory):
    """nano, with one block; its override."""
    path = tmp_path_factory.mktemp("size") / "one_block.yaml"
    text = (SIZES / "nano.yaml").read_text(encoding="utf-8")
    assert "\ndepth: 4" in text
    path.write_text(text.replace("\ndepth: 4", f"\ndepth: {BLOCKS}"), encoding="utf-8")
    return f"model={path}"


def collectives(selection) -> dict[str, int]:
    return {o: n for (o, kernel), n in selection.kernels.items() if kernel == "hccl"}


@pytest.mark.parametrize("chip", ["Ascend910A", "Ascend310P3"])
def test_older_chips_compute_in_float16_without_the_flash_kernel(select, size, chip):
    selection = select("step", size, chip=chip)
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    assert "BatchMatMul" in kernels and "FlashAttentionScore" not in kernels


@pytest.mark.parametrize("change", ["train.recompute=true", "train.accumulate=2"])
def test_other_ways_of_training(select, size, change):
    assert find_faults(select("step", size, change)) == []


@pytest.mark.parametrize("rank", [0, 7])
def test_data_ranks_reduce_each_gradient_once(select, size, rank):
    """And gather both sides' embeddings, their groups and captions; and the number of pairs."""
    selection = select("step", size, rank=rank, ranks=8)
    assert find_faults(selection) == []
    assert collectives(selection) == {**ALIGNMENT, "AllReduce": PARAMETERS + 1}


def test_tensor_and_sequence_ranks_exchange_what_a_block_needs(select, size):
    matrix = "parallel.tensor=2", "parallel.sequence=2"
    selection = select("step", size, *matrix, rank=5, ranks=8)
    assert find_faults(selection) == []
    found = collectives(selection)
    # query, key, value and output, there and back
    assert found["AllToAll"] == 8 * BLOCKS
    # forward and backward of both halves of a block, gains of queries and keys, the norm's sum
    within = 6 * BLOCKS + 1
    assert found["AllReduce"] == PARAMETERS + 1 + within
    assert found["AllGather"] == ALIGNMENT["AllGather"] + 1  # of the hidden states
    assert found["ReduceScatter"] == ALIGNMENT["ReduceScatter"] + 1


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_stages_send_to_their_neighbours(select, rank):
    """Of four stages with two data ranks each, a block of nano a stage."""
    keys = "parallel.pipeline=4", "train.accumulate=2"
    selection = select("step", *keys, rank=rank, ranks=8)
    assert find_faults(selection) == []
    first, last = rank < 2, rank > 5
    neighbours, held = 2 - first - last, OF_BLOCK + READING * first + OF_LOSSES * last
    # gradients once an update, the norm's sum, and what is told of the loss
    expected = {"AllReduce": held + 2, "Send": neighbours, "Receive": neighbours}
    if last:
        expected = {**ALIGNMENT, **expected, "AllReduce": held + 3}
    assert collectives(selection) == expected


@pytest.mark.parametrize("shard", ["optimizer", "parameters"])
def test_shards_are_scattered_and_gathered(select, size, shard):
    found = collectives(select("step", size, f"parallel.shard={shard}", rank=3, ranks=8))
    shared = found["ReduceScatter"] - ALIGNMENT["ReduceScatter"]
    assert shared == found["AllGather"] - ALIGNMENT["AllGather"] > 10
    # the other gradients, the number of pairs, the norm's sum
    assert found["AllReduce"] == PARAMETERS - shared + 2


@pytest.fixture(scope="module")
def mixture(size):
    """The same with eight experts in each block."""
    path = Path(size.removeprefix("model="))
    mixed = path.with_name("mixture.yaml")
    mixed.write_text(path.read_text(encoding="utf-8") + "experts: 8\n", encoding="utf-8")
    return f"model={mixed}"


@pytest.mark.parametrize("graph", ["step", "decode"])
def test_experts_have_kernels(select, mixture, graph):
    selection = select(graph, mixture)
    assert find_faults(selection) == []
    kernels = {operator for operator, _ in selection.kernels}
    assert {"TopkExt", "CumsumExt", "IndexAddExt", "IndexSelect", "BatchMatMul"} <= kernels


def test_experts_have_kernels_on_older_chips(select, mixture):
    assert find_faults(select("step", mixture, chip="Ascend310P3")) == []


# of each block the router and its balance, and of 8 experts three matrices as of one
ROUTERS, EXPERTS = 2 * BLOCKS, 3 * BLOCKS


@pytest.mark.parametrize("ranks, reduced", [(2, EXPERTS), (8, 0)])
def test_ranks_that_share_experts_swap_their_rows(select, mixture, ranks, reduced):
    """There and back, forward and backward; experts are reduced where several hold the same."""
    selection = select("step", mixture, f"parallel.expert={ranks}", rank=3, ranks=8)
    assert find_faults(selection) == []
    others = PARAMETERS + ROUTERS - EXPERTS
    # and the number of pairs, the norm's sum
    counts = {"AllReduce": others + reduced + 2, "AllToAll": 4 * BLOCKS}
    assert collectives(selection) == {**ALIGNMENT, **counts}


def test_experts_under_tensor_and_sequence_ranks(select, mixture):
    matrix = "parallel.tensor=2", "parallel.sequence=2", "parallel.expert=2", "train.recompute=true"
    selection = select("step", mixture, *matrix, rank=5, ranks=8)
    assert find_faults(selection) == []
    # queries, keys, values and output, and rows twice; there, again, and back
    assert collectives(selection)["AllToAll"] == 3 * (4 + 2) * BLOCKS
