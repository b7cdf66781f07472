import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import resize

import modality_adapters
from modality_adapters import ADAPTERS, MediaError, create_adapter

GRIDS = ["image", "audio", "video", "shape3d", "depth"]


def test_all_six_are_found():
    assert sorted(ADAPTERS) == ["audio", "depth", "image", "shape3d", "text", "video"]
    assert all(ADAPTERS[name].name == name for name in ADAPTERS)


def test_opencv_is_quiet_about_damaged_files():
    program = "import modality_adapters, cv2; cv2.imread('/no/such/file.png')"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", GRIDS)
def test_settings_make_an_equal_adapter(name, adapters, nano):
    settings = json.loads(json.dumps(adapters[name].settings()))
    again = create_adapter(name, settings)
    assert again == adapters[name]
    assert pickle.loads(pickle.dumps(again)) == again
    assert settings["shape"] == nano[name]["shape"]


def test_settings_that_differ_make_another_adapter(adapters, nano):
    other = create_adapter("audio", {**nano["audio"], "hop": 160})
    assert other != adapters["audio"]
    assert other.settings()["hop"] == 160


def test_unknown_names_are_refused_with_the_nearest(nano):
    with pytest.raises(ValueError, match="did you mean 'image'"):
        create_adapter("imagge", nano["image"])
    with pytest.raises(ValueError, match="did you mean 'sample_rate'"):
        create_adapter("audio", {**nano["audio"], "samplerate": 8000})
    with pytest.raises(ValueError, match="did you mean 'max_bytes'"):
        create_adapter("text", {"max_byte": 5})
    with pytest.raises(ValueError, match="'patch' is missing"):
        create_adapter("image", {"shape": [1, 32, 32, 3]})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("image", {"shape": [2, 32, 32, 3]}),
        ("image", {"shape": [1, 32, 32, 1]}),
        ("image", {"max_pixels": -1}),
        ("image", {"max_pixels": "many"}),
        ("audio", {"shape": [64, 2, 32, 1]}),
        ("audio", {"shape": [64, 1, 512, 1]}),  # more bands than the window tells apart
        ("audio", {"decibels": 0}),
        ("shape3d", {"margin": 9}),
        ("depth", {"nearest": 3.0, "farthest": 3.0}),
        ("depth", {"farthest": 65.6}),  # more than a 16-bit file holds
        ("depth", {"nearest": 1e-4}),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, change, nano):
    with pytest.raises(ValueError):
        create_adapter(name, {**nano[name], **change})


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(MediaError("a.png", "is empty")))
    assert (error.path, error.reason) == ("a.png", "is empty")


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_augmented_grids_keep_shape_range_and_kind(name, dtype, adapters, random, nano):
    grid = random.uniform(-1, 1, nano[name]["shape"]).astype(dtype)
    before = grid.copy()
    varied = [adapters[name].augment(grid, random) for _ in range(20)]
    assert np.array_equal(grid, before)
    assert all(one.shape == grid.shape and one.dtype == dtype for one in varied)
    assert all(one.min() >= -1 and one.max() <= 1 for one in varied)
    assert any(not np.array_equal(one, varied[0]) for one in varied[1:])
    again = adapters[name].augment(grid, np.random.default_rng(3))
    assert np.array_equal(again, adapters[name].augment(grid, np.random.default_rng(3)))


@pytest.mark.parametrize("name", GRIDS)
def test_strength_scales_how_far_a_grid_is_varied(name, adapters, random, nano):
    coarse = random.uniform(-0.5, 0.5, [max(1, n // 8) for n in nano[name]["shape"][:3]])
    smooth = resize(coarse[..., None], nano[name]["shape"], order=1).astype(np.float32)

    def change(strength: float) -> float:
        draws = (np.random.default_rng(seed) for seed in range(40))
        varied = (adapters[name].augment(smooth, draw, strength) for draw in draws)
        return float(np.mean([np.abs(one - smooth).mean() for one in varied]))

    assert change(0.0) < 1e-6
    assert 3 * change(0.25) < 2 * change(0.5) < 2 * change(1.0)


@pytest.mark.parametrize("name", ["image", "video"])
def test_augmenting_keeps_place_and_colour(name, adapters, random, nano):
    grid = np.full(nano[name]["shape"], -1, np.float32)
    grid[:, 6:12, 4:10, 0] = 0.9  # a red square at the top left
    for _ in range(30):
        varied = (adapters[name].augment(grid, random) + 0.5).clip(0)  # without the noise
        weight = varied.sum((0, 3))
        y, x = (weight.sum(1) @ np.arange(32), weight.sum(0) @ np.arange(32)) / weight.sum()
        assert abs(y - 8.5) < 4 and abs(x - 6.5) < 4
        assert varied[..., 0].sum() > 3 * varied[..., 1:].sum(axis=(0, 1, 2)).max()
    first, last = adapters[name].augment(grid, random)[[0, -1]]
    if name == "video":
        assert np.array_equal(first, last)  # all frames shift alike


@pytest.mark.parametrize("name", GRIDS)
def test_grids_that_do_not_fit_are_not_written(name, adapters, tmp_path, nano):
    adapter = adapters[name]
    path = tmp_path / f"a{adapter.suffixes[0]}"
    with pytest.raises(ValueError, match="is not"):
        adapter.write(np.zeros((2, 2, 2, 2)), path)
    with pytest.raises(ValueError, match="NaN"):
        adapter.write(np.full(nano[name]["shape"], np.nan), path)
    grid = np.zeros(nano[name]["shape"])
    with pytest.raises(MediaError, match="supported are"):
        adapter.write(grid, tmp_path / "a.xyz")
    with pytest.raises(MediaError, match="folder does not exist"):
        adapter.write(grid, tmp_path / "none" / path.name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(adapters, tmp_path, nano):
    path = tmp_path / "shape.stl"
    path.write_bytes(b"old")
    with pytest.raises(MediaError, match="no surface") as caught:
        adapters["shape3d"].write(np.ones(nano["shape3d"]["shape"]), path)
    assert caught.value.path == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_package_imports_no_later_layer():
    for file in Path(modality_adapters.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            packages = {name.split(".")[0] for name in names}
            assert not packages & {"mindspore", "taichu", "recipes", "torch"}, file.name
