"""Checkpoints: written whole or not at all, and every wrong tensor named."""

import mindspore as ms
import numpy as np
import pytest

from taichu import checkpoint
from taichu.checkpoint import (
    as_tensors,
    count_values,
    load_parameters,
    load_tensors,
    named_parameters,
    save_tensors,
)
from taichu.errors import CheckpointError

TENSORS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "number": np.float32(3) * np.ones(()),
    "whole": np.array([1, 2], np.int32),
}


def test_there_and_back(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    save_tensors(path, TENSORS, {"step": 3, "name": "七"})
    tensors, notes = load_tensors(path)
    assert notes == {"step": 3, "name": "七"} and count_values(path) == 15
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].shape == value.shape and tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name], value)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"step": 1})

    def fail(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_tensors(path, TENSORS, {"step": 2})
    assert load_tensors(path)[1] == {"step": 1}


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_damaged_file_is_named(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (load_tensors, count_values):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: damaged") and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for read in (load_tensors, count_values):
        with pytest.raises(CheckpointError, match="no.safetensors: no such file"):
            read(tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bias": None}, "x: tensor 'bias' is missing"),
        ({"scale": np.ones(2)}, "x: tensor 'scale' is not part of this model"),
        ({"bias": np.ones(3)}, r"x: tensor 'bias' has shape \[3\], the model wants \[2\]"),
    ],
)
def test_wrong_tensors_are_named(seeded, change, message):
    parameters = named_parameters(ms.nn.Dense(3, 2))
    tensors = {**as_tensors(parameters), **change}
    with pytest.raises(CheckpointError, match=message):
        load_parameters(parameters, {n: v for n, v in tensors.items() if v is not None}, "x")


def test_parameters_take_their_values(seeded):
    one, other = ms.nn.Dense(3, 2), ms.nn.Dense(3, 2)
    load_parameters(named_parameters(other), as_tensors(named_parameters(one)), "x")
    np.testing.assert_array_equal(other.weight.asnumpy(), one.weight.asnumpy())
