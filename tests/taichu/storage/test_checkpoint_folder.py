"""Checkpoints of several ranks: parts that any other device matrix puts together."""

import mindspore as ms
import numpy as np
import pytest

from ascend import device_matrix
from ascend.device_matrix import ParallelConfig, lay_out_ranks
from ascend.ranks import Ranks
from ascend.sharding import Part, is_first_holder
from taichu.errors import CheckpointError
from taichu.storage.checkpoint_folder import CheckpointFolder

pytestmark = pytest.mark.usefixtures("cpu")
WHOLE = {
    "rows": np.arange(48, dtype=np.float32).reshape(8, 6),
    "columns": np.arange(32, dtype=np.float32).reshape(4, 8) + 100,
    "experts": np.arange(48, dtype=np.float32).reshape(4, 6, 2) + 200,
    "norm": np.array([1.5, 2.5], np.float32),
    "steps": np.array([7], np.int32),
}


@pytest.fixture
def as_rank(monkeypatch):
    """as_rank(rank, size, **parallel): the parts of `WHOLE` that such a rank holds."""

    def become(rank: int, size: int, fill: bool, **parallel):
        matrix = lay_out_ranks(ParallelConfig(**parallel), Ranks(rank, size))
        monkeypatch.setitem(device_matrix._chosen, "matrix", matrix)
        rows = Part((8, 6)).split(0, matrix.tensor, "rows")
        if matrix.shard != "none":
            rows.split(0, matrix.replica, "rows")
        experts = Part((4, 6, 2)).split(0, matrix.expert, "experts")
        parts = {
            "rows": rows,
            "columns": Part((4, 8)).split(1, matrix.tensor, "columns"),
            "experts": experts.split(1, matrix.tensor, "hidden width"),
            "norm": Part((2,)),
            "steps": Part((1,)),
        }
        state, end = {}, matrix.pipeline.size - 1
        stages = {"rows": (0,), "columns": (end,), "norm": (0, end) if end else (0,)}
        for name, part in parts.items():
            if matrix.pipeline.index not in stages.get(name, range(end + 1)):
                continue
            value = part.place.cut(WHOLE[name], part.shape)
            value = value if fill else np.zeros_like(value)
            state[name] = part.mark(ms.Parameter(ms.Tensor(value), name))
            if name in stages:
                state[name].stages = stages[name]
        return state, matrix.ranks

    return become


def save_all(as_rank, folder, size, step=4, **parallel):
    for rank in range(size):
        state, ranks = as_rank(rank, size, True, **parallel)
        CheckpointFolder(folder, ranks).save(step, state, {"step": step})


SAVED = [(1, {}), (4, {}), (4, {"tensor": 2}), (4, {"shard": "optimizer"})]
SAVED += [(4, {"tensor": 2, "shard": "parameters"}), (8, {"tensor": 2, "sequence": 2})]
SAVED += [(6, {"pipeline": 3, "shard": "parameters"}), (4, {"pipeline": 2, "tensor": 2})]
SAVED += [(4, {"expert": 2, "shard": "optimizer"}), (8, {"tensor": 2, "expert": 4})]
READ = [(1, {}), (2, {"tensor": 2}), (4, {"shard": "optimizer"}), (8, {"tensor": 2, "expert": 2})]
READ += [(6, {"pipeline": 3, "shard": "optimizer"})]


@pytest.mark.parametrize("size, parallel", SAVED)
@pytest.mark.parametrize("new_size, new", READ)
def test_any_matrix_reads_what_any_other_wrote(as_rank, tmp_path, size, parallel, new_size, new):
    save_all(as_rank, tmp_path, size, **parallel)
    assert len(list(tmp_path.iterdir())) == size
    for rank in range(new_size):
        state, ranks = as_rank(rank, new_size, False, **new)
        elsewhere = WHOLE.keys() - state.keys()
        arrays, notes, source = CheckpointFolder(tmp_path, ranks).load(state, elsewhere)
        assert arrays.keys() == state.keys()
        assert notes["step"] == 4 and str(tmp_path) in source
        expected, _ = as_rank(rank, new_size, True, **new)
        for name, value in expected.items():
            np.testing.assert_array_equal(arrays[name], value.asnumpy())


def test_a_tensor_is_written_once(as_rank, tmp_path):
    """What several ranks hold is in one file only."""
    save_all(as_rank, tmp_path, 4, tensor=2)
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    total = sum(array.nbytes for array in WHOLE.values())
    assert total < sum(sizes) < total + 4 * 1200  # headers
    assert sizes[0] > sizes[2] == sizes[3]  # ranks 2 and 3 hold copies alone


def test_experts_are_written_by_the_first_replica_that_holds_them(as_rank):
    for rank in range(8):
        state, _ = as_rank(rank, 8, True, tensor=2, expert=2)
        assert is_first_holder(state["experts"]) == (rank < 4)
        assert is_first_holder(state["rows"]) == (rank < 2)


def test_a_step_that_not_all_ranks_saved_is_passed_over(as_rank, tmp_path, capsys):
    save_all(as_rank, tmp_path, 2, step=4)
    save_all(as_rank, tmp_path, 2, step=8)
    (tmp_path / "step-00000008-rank-0001-of-0002.safetensors").unlink()
    state, ranks = as_rank(0, 2, False)
    _, notes, _ = CheckpointFolder(tmp_path, ranks).load(state)
    assert notes["step"] == 4
    assert "1 of 2 ranks' files are missing" in capsys.readouterr().out


def test_a_damaged_part_takes_its_step_with_it(as_rank, tmp_path, capsys):
    save_all(as_rank, tmp_path, 2, step=4, tensor=2)
    save_all(as_rank, tmp_path, 2, step=8, tensor=2)
    path = tmp_path / "step-00000008-rank-0001-of-0002.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    state, ranks = as_rank(0, 1, False)
    assert CheckpointFolder(tmp_path, ranks).load(state)[1]["step"] == 4
    assert path.name in capsys.readouterr().out
    for path in tmp_path.glob("step-00000004*"):
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        CheckpointFolder(tmp_path, ranks).load(state)


def test_the_last_two_are_kept_and_those_of_another_number_of_ranks_go(as_rank, tmp_path):
    save_all(as_rank, tmp_path, 4, step=2)
    save_all(as_rank, tmp_path, 2, step=4)
    assert len(list(tmp_path.iterdir())) == 6  # the one before is still a whole one
    for step in (6, 8):
        save_all(as_rank, tmp_path, 2, step=step)
    names = sorted(path.name for path in tmp_path.iterdir())
    steps = ("00000006", "00000008")
    assert names == [
        f"step-{step}-rank-000{rank}-of-0002.safetensors" for step in steps for rank in (0, 1)
    ]


def test_another_model_is_refused(as_rank, tmp_path):
    save_all(as_rank, tmp_path, 2)
    state, ranks = as_rank(0, 1, False)
    state["rows"] = ms.Parameter(np.zeros((8, 7), np.float32), "rows")
    with pytest.raises(CheckpointError, match=r"'rows' has shape \[8, 6\], the model wants \[8, 7"):
        CheckpointFolder(tmp_path, ranks).load(state)
    state, _ = as_rank(0, 1, False)
    state["more"] = ms.Parameter(np.zeros(3, np.float32), "more")
    with pytest.raises(CheckpointError, match="'more' is missing"):
        CheckpointFolder(tmp_path, ranks).load(state)
    del state["more"], state["norm"]
    with pytest.raises(CheckpointError, match="'norm' is not part of this model"):
        CheckpointFolder(tmp_path, ranks).load(state)
    assert CheckpointFolder(tmp_path / "none", ranks).load(state) == ({}, {}, "")
