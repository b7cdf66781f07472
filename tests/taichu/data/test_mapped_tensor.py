"""Mapped tensors against the safetensors library, and files that are not what they should be."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from taichu.data.mapped_tensor import create_mapped, open_mapped
from taichu.errors import CheckpointError

KINDS = {"F16": np.float16, "F32": np.float32, "I32": np.int32}


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_reads_what_is_written_and_the_other_way_round(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    values = np.random.default_rng(1).integers(-99, 99, (5, 3, 2)).astype(KINDS[kind])
    create_mapped(path, "grids", values.shape, kind)
    assert not open_mapped(path, "grids").any()
    for rows in (slice(3, 5), slice(0, 3)):  # as two processes would
        part = open_mapped(path, "grids", writable=True)
        part[rows] = values[rows]
        part.flush()
    np.testing.assert_array_equal(load_file(path)["grids"], values)
    save_file({"grids": values}, path)
    mapped = open_mapped(path, "grids")
    assert mapped.dtype == KINDS[kind] and isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, values)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


def test_a_tensor_without_rows(tmp_path):
    create_mapped(tmp_path / "a.safetensors", "grids", (0, 4, 4, 3))
    assert open_mapped(tmp_path / "a.safetensors", "grids").shape == (0, 4, 4, 3)


def test_what_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="a.safetensors: no such file"):
        open_mapped(path, "grids")
    create_mapped(path, "grids", (4, 4))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="a.safetensors: damaged"):
        open_mapped(path, "grids")
    entry = {"dtype": "F16", "shape": [2**40, 2**40], "data_offsets": [0, 8]}
    header = json.dumps({"grids": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="a.safetensors: damaged"):
        open_mapped(path, "grids")
    for tensors in ({"other": np.ones(3, np.float16)}, {"grids": np.ones(3, np.float64)}):
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="must hold one tensor 'grids' of F16, F32, I32"):
            open_mapped(path, "grids")
