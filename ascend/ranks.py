"""This process's place among the ranks of a job."""

import functools
import os
from dataclasses import dataclass

import numpy as np

from ascend.device import DeviceError
from ascend.threads import given_threads

BACKENDS = {"Ascend": "hccl", "GPU": "nccl", "CPU": "mccl"}


@dataclass(frozen=True)
class Ranks:
    """A place among the ranks.

    Attributes:
        rank: this process's number, from 0.
        size: ranks of the job, on all nodes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes what is written once."""
        return self.rank == 0


def read_ranks() -> Ranks:
    """The place that msrun gives this process in its environment; rank 0 of 1 where it gives none.

    Raises:
        DeviceError: RANK_ID and RANK_SIZE do not fit together.
    """
    rank, size = os.environ.get("RANK_ID"), os.environ.get("RANK_SIZE")
    if rank is None and size is None:
        return Ranks()
    try:
        ranks = Ranks(int(rank), int(size))
    except (TypeError, ValueError):
        ranks = None
    if ranks is None or not 0 <= ranks.rank < ranks.size:
        raise DeviceError(f"RANK_ID={rank} must be a number from 0 to below RANK_SIZE={size}")
    started = {"MS_ROLE", "MS_SIMULATION_LEVEL"} & os.environ.keys()  # by msrun, or in pretence
    if ranks.size > 1 and not started:
        raise DeviceError(f"RANK_SIZE={size}, but msrun has not started this process; unset it")
    return ranks


def mean_over_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks' mean of an array of numbers, float32; every rank has to call this."""
    ranks = join()
    if ranks.size == 1:
        return values
    import mindspore
    from mindspore import ops

    total = ops.AllReduce()(mindspore.Tensor(values.astype(np.float32)))
    return total.asnumpy() / ranks.size


@functools.cache
def join() -> Ranks:
    """Meet the other ranks, once a process; alone, nothing is done but to say rank 0 of 1.

    To be called when the device is set and before any tensor is made. Returns when all ranks have
    called it; from then on they can communicate.

    Raises:
        DeviceError: see `read_ranks`; or MindSpore numbers the ranks in another way.
        ThreadsError: see `given_threads`.
        RuntimeError: MindSpore cannot bring the ranks together.
    """
    ranks = read_ranks()
    if ranks.size == 1:
        return ranks
    import mindspore
    from mindspore import communication

    target = mindspore.get_context("device_target")
    if target == "CPU" and (threads := given_threads()):  # by default it takes every core
        mindspore.device_context.cpu.op_tuning.threads_num(threads)
    communication.init(BACKENDS[target])
    given = Ranks(communication.get_rank(), communication.get_group_size())
    if given != ranks:
        raise DeviceError(f"MindSpore says {given}, the environment {ranks}")
    return ranks
