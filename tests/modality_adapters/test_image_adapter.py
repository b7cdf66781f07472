import cv2
import numpy as np
import pytest
from PIL import Image

from modality_adapters import create_adapter
from modality_adapters.frames import to_grid, to_pixels

EXACT = (".png", ".bmp", ".tif", ".tiff", ".webp")


def decibels(grid, other) -> float:
    """PSNR of values in [-1, 1]."""
    error = np.mean((np.float32(grid) - np.float32(other)) ** 2)
    return 10 * np.log10(4 / max(error, 1e-10))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("photo", ["china", "astronaut", "camera"])
def test_there_and_back(suffix, photo, adapters, photos, tmp_path):
    grid = adapters["image"].read(photos[photo])
    assert grid.shape == (1, 32, 32, 3) and grid.dtype == np.float16
    path = adapters["image"].write(grid, tmp_path / f"a{suffix.upper()}")
    again = adapters["image"].read(path)
    if suffix in EXACT:
        assert np.array_equal(again, grid)
    else:
        assert decibels(grid, again) > 24
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_every_pixel_value_comes_back():
    pixels = np.arange(256, dtype=np.uint8)
    values = to_grid(pixels)
    assert values[0] == -1 and values[255] == 1 and values.dtype == np.float16
    assert np.array_equal(to_pixels(values), pixels)


def test_pixels_are_rgb_and_kept_when_sizes_match(adapters, random, tmp_path):
    pixels = random.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(to_pixels(adapters["image"].read(tmp_path / "a.png")[0]), pixels)


def test_aspect_is_kept_on_black(adapters, tmp_path):
    Image.new("RGB", (64, 32), (255, 255, 255)).save(tmp_path / "wide.png")
    grid = adapters["image"].read(tmp_path / "wide.png")[0]
    assert (grid[8:24] == 1).all() and (grid[:8] == -1).all() and (grid[24:] == -1).all()
    Image.new("RGB", (1, 500), (255, 255, 255)).save(tmp_path / "thin.png")
    assert adapters["image"].read(tmp_path / "thin.png").max() == 1


def test_small_images_are_enlarged_smoothly(tmp_path):
    adapter = create_adapter("image", {"shape": [1, 8, 8, 3], "patch": [1, 8, 8]})
    Image.new("RGB", (2, 2), (40, 50, 60)).save(tmp_path / "a.png")
    assert (to_pixels(adapter.read(tmp_path / "a.png")) == [40, 50, 60]).all()


def test_transparency_is_laid_on_black(adapters, tmp_path):
    pixels = np.full((32, 32, 4), 200, np.uint8)
    pixels[..., 3] = np.arange(32) * 8
    for suffix in (".png", ".webp", ".tif"):
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
        seen = to_pixels(adapters["image"].read(tmp_path / f"a{suffix}")[0])
        assert np.abs(seen[0, :, 0] - np.rint(200 * np.arange(32) * 8 / 255)).max() <= 1
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([255, 255, 255, 10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=1)
    assert (adapters["image"].read(tmp_path / "p.png") == -1).all()


def test_grey_and_16_bit(adapters, tmp_path):
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    cv2.imwrite(str(tmp_path / "grey.png"), ramp)
    cv2.imwrite(str(tmp_path / "deep.png"), ramp.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "float.tiff"), ramp.astype(np.float32) / 255)
    for name in ("grey.png", "deep.png", "float.tiff"):
        seen = to_pixels(adapters["image"].read(tmp_path / name)[0])
        assert np.array_equal(seen, np.repeat(ramp[..., None], 3, 2)), name


def test_exif_orientation_is_followed(adapters, tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    grid = adapters["image"].read(tmp_path / "a.jpg")[0]
    assert grid[:14].max() < -0.9 and grid[18:].min() > 0.9


def test_of_several_pages_the_first_is_read(adapters, photos):
    assert adapters["image"].read(photos["multipage"]).shape == (1, 32, 32, 3)
