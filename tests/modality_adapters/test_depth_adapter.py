"""Depth maps in metres and millimetres, measured or not, in every size; pictures are refused."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from modality_adapters import MediaError, create_adapter

SETTINGS = {"shape": [1, 32, 32, 1], "patch": [1, 8, 8], "nearest": 1.0, "farthest": 5.0}


@pytest.fixture(scope="module")
def adapter():
    return create_adapter("depth", SETTINGS)


def value(metres):
    """What a distance reads as."""
    return 1 - 2 * (np.clip(metres, 1, 5) - 1) / 4


def test_both_kinds_of_file_read_as_the_same_distances(adapter, random, tmp_path):
    millimetres = random.integers(1, 65536, (32, 32)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), millimetres)
    Image.fromarray(millimetres).save(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tiff", (millimetres / 1000).astype(np.float32))
    expected = value(millimetres / 1000)
    assert (expected == 1).sum() > 5 and (np.abs(expected) < 1).sum() > 30
    for name in ("a.png", "a.tif", "a.tiff"):
        grid = adapter.read(tmp_path / name)
        assert grid.shape == (1, 32, 32, 1) and grid.dtype == np.float16
        np.testing.assert_allclose(grid[0, :, :, 0], expected, atol=1e-3, err_msg=name)


def test_what_was_not_measured_is_farthest(adapter, tmp_path):
    metres = np.full((32, 32), 1.0, np.float32)
    metres[0, :6] = 0, -1, np.nan, np.inf, -np.inf, 3e38
    tifffile.imwrite(tmp_path / "a.tiff", metres)
    grid = adapter.read(tmp_path / "a.tiff")[0, :, :, 0]
    assert (grid[0, :6] == -1).all() and (grid[1:] == 1).all() and (grid[0, 6:] == 1).all()


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (67, 51), (500, 1), (480, 640)])
def test_smaller_grids_mix_nothing_measured_with_what_is_not(adapter, shape, random, tmp_path):
    """The mean of what was measured, in float64; where all of it is alike, nothing else comes."""
    millimetres = np.where(random.random(shape) < 0.6, 2000, 0).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), millimetres)
    grid = adapter.read(tmp_path / "a.png")[0, :, :, 0]
    assert set(np.unique(grid)) <= {np.float16(-1), np.float16(0.5)} and (grid == 0.5).any()
    if shape == (64, 64):
        slope = np.where(millimetres > 0, random.uniform(1100, 4900, shape), 0).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "b.png"), slope)
        areas = slope.reshape(32, 2, 32, 2).transpose(0, 2, 1, 3).reshape(32, 32, 4) / 1000.0
        count = (areas > 0).sum(-1)
        expected = np.where(count >= 2, value(areas.sum(-1) / np.maximum(count, 1)), -1)
        assert (count == 2).any() and (count == 1).any()
        found = adapter.read(tmp_path / "b.png")[0, :, :, 0]
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_aspect_is_kept_and_small_maps_are_repeated(adapter, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.uint16([[1000, 3000]]))
    grid = adapter.read(tmp_path / "a.png")[0, :, :, 0]
    assert (grid[8:24, :16] == 1).all() and np.abs(grid[8:24, 16:]).max() < 1e-6
    assert (grid[:8] == -1).all() and (grid[24:] == -1).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_there_and_back_within_half_a_millimetre(adapter, suffix, random, tmp_path):
    grid = random.uniform(-1, 1, (1, 32, 32, 1)).astype(np.float32)
    grid[0, 0, 0], grid[0, 0, 1] = -1, 1
    path = adapter.write(grid, tmp_path / f"a{suffix}")
    millimetres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16
    assert millimetres[0, 0] == 5000 and millimetres[0, 1] == 1000
    np.testing.assert_allclose(value(millimetres / 1000), grid[0, :, :, 0], atol=2.6e-4)
    np.testing.assert_allclose(adapter.read(path), grid, atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.zeros((8, 8), np.uint8), "L"),
        (np.zeros((8, 8, 3), np.uint8), "RGB"),
        (np.zeros((8, 8, 3), np.uint16), "RGB"),
        (np.zeros((8, 8, 4), np.uint8), "RGBA"),
    ],
)
def test_pictures_are_refused(adapter, pixels, mode, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    with pytest.raises(MediaError) as caught:
        adapter.read(tmp_path / "a.png")
    assert f"colours ({mode})" in caught.value.reason and "\n" not in str(caught.value)
    assert "16 bits (millimetres) or of 32-bit floats (metres)" in caught.value.reason


def test_numbers_of_other_kinds_are_refused(adapter, tmp_path):
    for kind in (np.int32, np.float64):
        tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), kind))
        with pytest.raises(MediaError, match="32-bit floats|not an image|damaged"):
            adapter.read(tmp_path / "a.tif")


def test_large_maps_are_refused_by_their_header(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.ones((32, 32), np.uint16))
    with pytest.raises(MediaError, match="32 x 32 pixels, over the limit 1,000"):
        create_adapter("depth", SETTINGS | {"max_pixels": 1000}).read(tmp_path / "a.png")


def test_augmenting_leaves_what_is_far_far(adapter, random):
    """Things come a little nearer or farther and move a little; nothing appears beside them."""
    grid = np.full((1, 32, 32, 1), -1, np.float32)
    grid[:, 10:20, 12:22] = 0.4
    for _ in range(20):
        varied = adapter.augment(grid, random)[0, :, :, 0]
        assert varied[:5].max() < -0.97 and varied[:, :6].max() < -0.97
        assert 0.1 < varied[13:17, 15:19].mean() < 0.6
