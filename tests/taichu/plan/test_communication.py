"""What is sent, against numbers worked out by hand."""

from dataclasses import replace

import pytest

from ascend.device_matrix import ParallelConfig
from ascend.rates import find_device_type
from taichu.plan.communication import Collective, communication, seconds
from taichu.plan.workload import stages

B2 = find_device_type("910B2")


@pytest.fixture(scope="module")
def work(read_workload):
    """Nano: width 128, 4 blocks, 4 heads of 32; 8 rows of 64 tokens, in two bytes."""
    return read_workload("mixture.rows=8", "mixture.length=64", "mixture.alignment_weight=0")


def sent(work, layout, devices, group):
    stage = stages(work.size, layout)[0]
    return {
        (c.kind, c.size): c.calls
        for c in communication(work, layout, devices, stage)
        if c.group == group
    }


def test_tensor(work):
    """Two sums of (512, 128) forward and two backward, of each of 4 blocks."""
    found = sent(work, ParallelConfig(tensor=4), 4, "tensor")
    gains = {("AllReduce", 4 * 32): 8}
    norm = {("AllReduce", 4 * 2): 1}
    assert found == {("AllReduce", 512 * 128 * 2): 16, **gains, **norm}
    again = sent(work.recomputed(True), ParallelConfig(tensor=4), 4, "tensor")
    assert again["AllReduce", 512 * 128 * 2] == 20


def test_sequence(work):
    """Four of (256, 4 x 32) there and back in each block, and the last hidden state."""
    found = sent(work, ParallelConfig(sequence=2), 2, "sequence")
    assert found == {
        ("AlltoAll", 256 * 128 * 2): 4 * 2 * 4,
        ("AllGather", 512 * 128 * 2): 1,
        ("ReduceScatter", 512 * 128 * 2): 1,
    }


def test_pipeline(work):
    """A state of (512, 128) a batch; in the middle forward and backward. Once, the gradients' norm,
    and the loss with its seven parts."""
    work, once = replace(work, accumulate=6), {("AllReduce", 4): 1, ("AllReduce", 4 * 8): 1}
    state = "Send", 512 * 128 * 2
    assert sent(work, ParallelConfig(pipeline=2), 2, "pipeline") == {state: 6, **once}
    assert sent(work, ParallelConfig(pipeline=4), 4, "pipeline") == {state: 12, **once}


def test_gradients(work):
    """Of a feed-forward layer's three of 256 x 128, in each of 4 blocks, in float32."""
    whole, half = 4 * 256 * 128, 2 * 256 * 128
    assert sent(work, ParallelConfig(), 4, "replica")["AllReduce", whole] == 12
    found = sent(work, ParallelConfig(shard="optimizer"), 4, "replica")
    assert found["ReduceScatter", whole] == found["AllGather", whole] == 12
    accumulated = replace(work, accumulate=3)
    assert sent(accumulated, ParallelConfig(shard="optimizer"), 4, "replica") == found
    found = sent(accumulated, ParallelConfig(shard="parameters"), 4, "replica")
    assert found["ReduceScatter", whole] == found["AllGather", half] == 3 * 12
    again = sent(accumulated.recomputed(True), ParallelConfig(shard="parameters"), 4, "replica")
    assert again["AllGather", half] == 6 * 12


def test_alignment(read_workload):
    """Embeddings of 128 numbers of both sides, of all 4 data ranks, and back."""
    work = read_workload()
    E = work.batch.pairs
    found = sent(work, ParallelConfig(), 4, "data")
    assert found == {
        ("AllGather", 4 * 4 * E * 128): 2,
        ("ReduceScatter", 4 * 4 * E * 128): 2,
        ("AllGather", 4 * 4 * E): 2,
        ("AllReduce", 4): 1,
    }


def test_one_device_sends_nothing(work):
    assert communication(work, ParallelConfig(), 1, stages(work.size, ParallelConfig())[0]) == []


def test_bytes_in_rings():
    assert Collective("AllReduce", "replica", 1000, 3).sent(4) == 3 * 2 * 750
    assert Collective("AllGather", "replica", 1000, 1).sent(4) == 750
    assert Collective("AlltoAll", "sequence", 1000, 1).sent(4) == 750
    assert Collective("Send", "pipeline", 1000, 2).sent(2) == 2000


def test_seconds():
    """A 910B2 has seven links of 28 GB/s to its node, 25 GB/s beyond it, of which 65 % is used."""
    link, beyond = 0.65 * 28e9, 0.65 * 25e9
    reduce = Collective("AllReduce", "tensor", 10**9, 1)
    assert seconds(reduce, ParallelConfig(tensor=2), 8, B2) == pytest.approx(1e9 / link)
    assert seconds(reduce, ParallelConfig(tensor=8), 8, B2) == pytest.approx(
        2 * 7 / 8 * 1e9 / (7 * link)
    )
    everywhere = Collective("AllReduce", "replica", 10**9, 1)
    inside, outside = 2 * 7 / 8 * 1e9 / (7 * link), 2 * 3 / 4 * 1e9 / 8 / beyond
    assert seconds(everywhere, ParallelConfig(), 32, B2) == pytest.approx(inside + outside)
    # replicas of 8 tensor ranks stand in a node of their own each
    alone = seconds(everywhere, ParallelConfig(tensor=8), 32, B2)
    assert alone == pytest.approx(2 * 3 / 4 * 1e9 / beyond)
    swap = Collective("AlltoAll", "sequence", 10**9, 1)
    time = seconds(swap, ParallelConfig(tensor=4, sequence=4), 16, B2)
    assert time == pytest.approx(0.5 * 1e9 / link + 0.5 * 1e9 / beyond)
