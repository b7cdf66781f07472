"""Places of ranks on the device matrix, and parts of parameters."""

import numpy as np
import pytest

from ascend.device_matrix import DeviceMatrixError, ParallelConfig, lay_out_ranks
from ascend.ranks import Ranks
from ascend.sharding import Part, Place


def the_place(ranks: range, me: int, axis) -> bool:
    """Whether an axis is of these ranks, this one at its place among them."""
    alone = len(ranks) == 1
    here = 0 if alone else list(ranks).index(me)
    return axis.ranks == ((0,) if alone else tuple(ranks)) and axis.index == here


def test_every_rank_has_its_place():
    """Of two stages with two replicas' data, three shares of rows and two of matrices."""
    config = ParallelConfig(tensor=2, sequence=3, pipeline=2)
    for rank in range(24):
        matrix = lay_out_ranks(config, Ranks(rank, 24))
        stage, in_stage, block = rank // 12, 12 * (rank // 12), rank // 2 * 2
        assert the_place(range(block, block + 2), rank, matrix.tensor)
        first = in_stage + rank % 12 // 6 * 6 + rank % 2
        assert the_place(range(first, first + 6, 2), rank, matrix.sequence)
        first = in_stage + rank % 6
        assert the_place(range(first, first + 12, 6), rank, matrix.data)
        first = in_stage + rank % 2
        assert the_place(range(first, first + 12, 2), rank, matrix.replica)
        for axis in (matrix.pipeline, matrix.ends):
            assert the_place(range(rank % 12, 24, 12), rank, axis)
        neighbours = range(rank % 12, 24, 12)
        before, behind = (matrix.before, matrix.behind)[:: 1 if stage else -1]
        assert the_place(neighbours, rank, before) and behind.size == 1


@pytest.mark.parametrize("stage", range(4))
def test_stages_know_their_neighbours(stage):
    matrix = lay_out_ranks(ParallelConfig(pipeline=4), Ranks(stage, 4))
    assert matrix.pipeline.ranks == (0, 1, 2, 3) and matrix.pipeline.index == stage
    assert matrix.before.ranks == ((stage - 1, stage) if stage else (0,))
    assert matrix.behind.ranks == ((stage, stage + 1) if stage < 3 else (0,))
    assert matrix.ends.ranks == ((0, 3) if stage in (0, 3) else (0,))
    assert (matrix.pipeline.first, matrix.pipeline.last) == (stage == 0, stage == 3)
    assert matrix.data.size == 1 and matrix.data.group == ""


def test_experts_are_shared_by_neighbours_of_the_data_axis():
    """Of two stages with four replicas' data, two shares of rows and two of matrices."""
    config = ParallelConfig(tensor=2, sequence=2, pipeline=2, expert=2)
    for rank in range(32):
        matrix = lay_out_ranks(config, Ranks(rank, 32))
        stage, data, place = rank // 16 * 16, rank % 16 // 4, rank % 4
        first = stage + data // 2 * 8 + place
        assert the_place(range(first, first + 8, 4), rank, matrix.expert)
        same = [stage + 4 * d + 2 * s + rank % 2 for d in (data % 2, data % 2 + 2) for s in (0, 1)]
        assert matrix.expert_replica.ranks == tuple(same)
        assert matrix.expert_replica.ranks[matrix.expert_replica.index] == rank
    matrix = lay_out_ranks(ParallelConfig(expert=4), Ranks(2, 4))
    assert matrix.expert.ranks == matrix.data.ranks and matrix.expert.group == matrix.data.group
    assert matrix.expert_replica.size == 1
    assert lay_out_ranks(ParallelConfig(), Ranks(2, 4)).expert.size == 1


def test_ranks_of_a_group_name_it_alike():
    config = ParallelConfig(tensor=2)
    names = [lay_out_ranks(config, Ranks(rank, 8)).tensor.group for rank in range(8)]
    assert len(set(names)) == 4 and names[0] == names[1] != names[2]


def test_what_does_not_fit_is_refused():
    with pytest.raises(DeviceMatrixError, match="tensor=3 times sequence=1 times pipeline=1 must"):
        lay_out_ranks(ParallelConfig(tensor=3), Ranks(0, 8))
    with pytest.raises(DeviceMatrixError, match="parallel.tensor: must be 1 or more"):
        ParallelConfig(tensor=0)
    with pytest.raises(DeviceMatrixError, match="parallel.shard: must be one of none, optimizer"):
        ParallelConfig(shard="all")
    with pytest.raises(DeviceMatrixError, match="parallel.expert: 4 must divide the 6 data ranks"):
        lay_out_ranks(ParallelConfig(tensor=2, expert=4), Ranks(0, 12))
    matrix = lay_out_ranks(ParallelConfig(expert=4), Ranks(0, 4))
    with pytest.raises(DeviceMatrixError, match="expert: 4 ranks cannot share experts of 6"):
        Part((6, 2, 2)).split(0, matrix.expert, "experts")
    matrix = lay_out_ranks(ParallelConfig(tensor=8), Ranks(0, 8))
    with pytest.raises(DeviceMatrixError, match="parallel.tensor: 8 ranks cannot share heads of 6"):
        Part((6,)).split(0, matrix.tensor, "heads")


def test_parts_make_up_the_whole():
    """A matrix split over the tensor axis, and its rows over the replicas."""
    whole, joined = np.arange(8 * 6).reshape(8, 6), np.zeros((8, 6), int)
    for rank in range(8):
        matrix = lay_out_ranks(ParallelConfig(tensor=2), Ranks(rank, 8))
        part = Part(whole.shape).split(1, matrix.tensor, "inputs").split(0, matrix.replica, "rows")
        assert part.shape == [2, 3] and part.splits == ((1, "tensor"), (0, "replica"))
        part.place.paste(joined, part.place.cut(whole, part.shape))
    np.testing.assert_array_equal(joined, whole)
    assert Place.of_whole((2, 3)) == Place((2, 3), (0, 0))
