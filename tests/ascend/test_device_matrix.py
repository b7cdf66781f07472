"""Places of ranks on the device matrix, and parts of parameters."""

import numpy as np
import pytest

from ascend.device_matrix import DeviceMatrixError, ParallelConfig, lay_out_ranks
from ascend.ranks import Ranks
from ascend.sharding import Part, Place


@pytest.mark.parametrize("tensor, sequence", [(1, 1), (2, 1), (1, 4), (2, 2), (8, 1)])
def test_every_rank_has_its_place(tensor, sequence):
    config = ParallelConfig(tensor=tensor, sequence=sequence)
    numbers = np.arange(8).reshape(8 // (tensor * sequence), sequence, tensor)
    for rank in range(8):
        matrix = lay_out_ranks(config, Ranks(rank, 8))
        d, s, t = (int(x[0]) for x in np.nonzero(numbers == rank))
        assert matrix.data.ranks == tuple(numbers[:, s, t])
        assert matrix.sequence.ranks == tuple(numbers[d, :, t])
        assert matrix.tensor.ranks == tuple(numbers[d, s, :])
        assert matrix.replica.ranks == tuple(numbers[:, :, t].ravel())
        for axis in (matrix.data, matrix.sequence, matrix.tensor, matrix.replica):
            assert axis.ranks[axis.index] == rank
            assert bool(axis.group)


def test_ranks_of_a_group_name_it_alike():
    config = ParallelConfig(tensor=2)
    names = [lay_out_ranks(config, Ranks(rank, 8)).tensor.group for rank in range(8)]
    assert len(set(names)) == 4 and names[0] == names[1] != names[2]


def test_what_does_not_fit_is_refused():
    with pytest.raises(DeviceMatrixError, match="tensor=3 times sequence=1 must divide the 8"):
        lay_out_ranks(ParallelConfig(tensor=3), Ranks(0, 8))
    with pytest.raises(DeviceMatrixError, match="parallel.tensor: must be 1 or more"):
        ParallelConfig(tensor=0)
    with pytest.raises(DeviceMatrixError, match="parallel.shard: must be one of none, optimizer"):
        ParallelConfig(shard="all")
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
