"""Files of tensors: written whole or not at all, and every damage noticed."""

import errno
import os

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from taichu.errors import CheckpointError, DiskFullError
from taichu.storage import tensor_file
from taichu.storage.tensor_file import checksum, count_values, load_tensors, save_tensors

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

    monkeypatch.setattr(tensor_file, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_tensors(path, TENSORS, {"step": 2})
    assert load_tensors(path)[1] == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_told_from_other_failures(tmp_path, monkeypatch, kind, number):
    """Of the system's errors safetensors keeps the text, in which Rust writes their number."""
    text = os.strerror(number)
    error = OSError(number, text) if kind is OSError else kind(f"{text} (os error {number})")

    def fail(tensors, partial, metadata):
        raise error

    monkeypatch.setattr(tensor_file, "save_file", fail)
    path = tmp_path / "new" / "a.safetensors"
    with pytest.raises(kind if number == errno.EIO else DiskFullError) as caught:
        save_tensors(path, TENSORS)
    if number != errno.EIO:
        assert str(caught.value).startswith(f"{path}: the disk is full: 0.0 MB needed, ")


def test_every_flipped_byte_is_noticed(tmp_path):
    """But one in the checksum's own name, which leaves a file without one."""
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"step": 3})
    whole = path.read_bytes()
    tensors = int.from_bytes(whole[:8], "little") + 8
    unnoticed = bytearray()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        try:
            loaded, notes = load_tensors(path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: damaged")
            continue
        assert place < tensors and notes == {"step": 3}
        for name, value in TENSORS.items():
            np.testing.assert_array_equal(loaded[name], value)
        unnoticed.append(whole[place])
    assert sorted(unnoticed) == sorted(b"crc32" + b"format" + b"np")


def test_a_file_of_another_program_needs_no_checksum(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones(3)}, path)
    tensors, notes = load_tensors(path)
    assert notes == {} and tensors["a"].tolist() == [1, 1, 1]


def test_a_checksum_is_that_of_the_zip_format(tmp_path):
    assert checksum({}, "123456789") == "cbf43926"  # the check value of CRC-32
    shapes = [np.zeros(4, np.int32), np.zeros((2, 2), np.int32), np.zeros(4, np.float32)]
    assert len({checksum({"a": value}, "") for value in shapes}) == 3
    assert checksum({"a": shapes[0]}, "") != checksum({"b": shapes[0]}, "")


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
