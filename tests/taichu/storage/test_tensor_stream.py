"""Files that are read and written part by part are those that are read and written at once."""

import errno
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from taichu.errors import CheckpointError, DiskFullError
from taichu.storage import tensor_stream
from taichu.storage.tensor_file import load_tensors, save_tensors
from taichu.storage.tensor_stream import Streamed, check_stream, list_tensors, write_stream


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"table": (50, 7), "b.norm": (3,), "number": (), "none": (0, 4)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(tensor_stream, "PART", 16)


def test_written(tensors, tmp_path, small_parts):
    """Under the checksum that `load_tensors` compares."""
    path = tmp_path / "a" / "new.safetensors"
    write_stream(path, {name: Streamed.of(value) for name, value in tensors.items()})
    found, notes = load_tensors(path)
    assert found.keys() == tensors.keys() and notes == {}
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].shape == value.shape
    assert set(check_stream(path)) == set(tensors)
    assert [file.name for file in path.parent.iterdir()] == ["new.safetensors"]


def test_read(tensors, tmp_path, small_parts):
    path = tmp_path / "file.safetensors"
    save_tensors(path, tensors, {"of": "this"})
    for name, stored in check_stream(path).items():
        parts = list(stored.read())
        assert all(len(part) <= 16 for part in parts)
        flat = np.concatenate([*parts, np.zeros(0, np.float32)])
        np.testing.assert_array_equal(flat.reshape(stored.shape), tensors[name])
    first = np.concatenate(list(list_tensors(path)[0]["table"].read(21)))
    np.testing.assert_array_equal(first.reshape(3, 7), tensors["table"][:3])


def test_kinds_beside_each_other(tensors, tmp_path):
    """Numbers of two bytes come last, so that those of four are aligned."""
    kinds = dict(zip(sorted(tensors), ("BF16", "F32", "F16", "F32")))
    made = {
        name: Streamed(kinds[name], value.shape, Streamed.of(value).read)
        for name, value in tensors.items()
    }
    write_stream(tmp_path / "f.safetensors", made, {"format": "pt"})
    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    for name, found in load_file(tmp_path / "f.safetensors").items():
        expected = torch.tensor(tensors[name]).to(types[kinds[name]])
        assert found.dtype == expected.dtype and torch.equal(found, expected), name
    for stored in list_tensors(tmp_path / "f.safetensors")[0].values():
        assert stored.start % np.dtype(tensor_stream.RAW[stored.kind]).itemsize == 0


def test_damage_is_found(tensors, tmp_path):
    path = tmp_path / "file.safetensors"
    save_tensors(path, tensors)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file.safetensors: damaged \(its content"):
        check_stream(path)
    path.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match="file.safetensors: damaged"):
        list_tensors(path)
    with pytest.raises(CheckpointError, match="other.safetensors: no such file"):
        list_tensors(tmp_path / "other.safetensors")


def test_a_file_that_shrinks_meanwhile(tensors, tmp_path):
    path = tmp_path / "file.safetensors"
    save_tensors(path, tensors)
    stored = list_tensors(path)[0]["table"]
    path.write_bytes(path.read_bytes()[: stored.start + 40])
    with pytest.raises(CheckpointError, match="ends within tensor 'table'"):
        list(stored.read())


def test_a_full_disk_leaves_nothing(tensors, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="file.safetensors: the disk is full: 0.0 MB needed"):
        write_stream(tmp_path / "file.safetensors", {"a": Streamed.of(tensors["table"])})
    assert not list(tmp_path.iterdir())
