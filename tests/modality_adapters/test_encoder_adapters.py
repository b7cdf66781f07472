"""Adapters that read what published encoders were trained on, held against `transformers`."""

import cv2
import numpy as np
import pytest
import soundfile
import transformers
from PIL import Image

from modality_adapters import create_adapter
from modality_adapters.resampling import resize

WHISPER = {"form": "whisper", "shape": [3000, 1, 80, 1], "patch": [20, 1, 80]}


@pytest.fixture(scope="module")
def ears():
    return create_adapter("audio", WHISPER)


@pytest.mark.parametrize("name", ["china", "flower", "astronaut", "camera"])
@pytest.mark.parametrize("form, kind", [("crop", "CLIP"), ("stretch", "Siglip")])
def test_pixels_are_those_of_the_processor(name, form, kind, photos):
    adapter = create_adapter(
        "image", {"form": form, "shape": [1, 224, 224, 3], "patch": [1, 16, 16]}
    )
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(
        do_normalize=False, do_rescale=False
    )
    # as OpenCV decodes it: decoders of JPEG differ by a level
    image = cv2.imread(str(photos[name]))[:, :, ::-1]
    expected = processor(Image.fromarray(image))["pixel_values"][0].transpose(1, 2, 0)
    made = np.rint((adapter.read(photos[name])[0].astype(np.float64) + 1) * 127.5)
    difference = np.abs(made - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 2e-3


def test_normalised_pixels_are_those_of_the_processor(photos):
    """Within half a step of half precision, and the level by which rounding may differ."""
    adapter = create_adapter(
        "image", {"form": "crop", "shape": [1, 224, 224, 3], "patch": [1, 16, 16]}
    )
    processor = transformers.CLIPImageProcessorPil()
    image = cv2.imread(str(photos["china"]))[:, :, ::-1]
    expected = processor(Image.fromarray(image))["pixel_values"][0].transpose(1, 2, 0)
    mean, deviation = np.array(processor.image_mean), np.array(processor.image_std)
    made = ((adapter.read(photos["china"])[0].astype(np.float64) + 1) / 2 - mean) / deviation
    difference = np.abs(made - expected)
    assert difference.max() < 1 / 255 / 0.26 + 5e-4 and np.quantile(difference, 0.99) < 6e-4


@pytest.mark.parametrize("size", [(30, 20), (300, 7), (64, 64), (131, 50), (131, 140)], ids=str)
def test_resizing_is_that_of_pillow(size, random):
    pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.BICUBIC)).astype(int)
    made = resize(pixels, size)
    assert np.abs(made - expected).max() <= 1 and (made != expected).mean() < 1e-2
    part = resize(pixels, size, (3, 2), (20, 4))
    np.testing.assert_array_equal(part, made[3:23, 2:6])


def test_of_long_images_the_middle_is_read_in_little_memory(tmp_path):
    """1 x 200,000 pixels: resized whole, its shorter side 224, they would be 10 GB."""
    line = np.zeros((1, 200_000, 3), np.uint8)
    line[:, 99_990:100_010] = 255
    cv2.imwrite(str(tmp_path / "line.png"), line)
    for form, seen in (("crop", 1.0), ("stretch", -0.9)):
        adapter = create_adapter(
            "image", {"form": form, "shape": [1, 224, 224, 3], "patch": [1, 16, 16]}
        )
        grid = adapter.read(tmp_path / "line.png")
        assert grid.shape == (1, 224, 224, 3)
        assert grid[0, :, 100:124].mean() == pytest.approx(seen, abs=0.15)


def test_what_an_encoder_does_not_see_of_a_stretched_image(photos):
    """SigLIP's 384 pixels, of which patches of 14 cover 378."""
    settings = {"form": "stretch", "shape": [1, 378, 378, 3], "patch": [1, 14, 14], "side": 384}
    whole = {"form": "stretch", "shape": [1, 384, 384, 3], "patch": [1, 16, 16]}
    grid, expected = (create_adapter("image", s).read(photos["flower"]) for s in (settings, whole))
    np.testing.assert_array_equal(grid, expected[:, :378, :378])


def test_crops_are_square():
    with pytest.raises(ValueError, match="'crop' is of a square, not of 32 x 16"):
        create_adapter("image", {"form": "crop", "shape": [1, 32, 16, 3], "patch": [1, 8, 8]})


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("seconds", [0.01, 4, 30, 31])
def test_log_mel_is_that_of_the_extractor(bands, seconds, random):
    shape = {"shape": [3000, 1, bands, 1], "patch": [20, 1, bands]}
    adapter = create_adapter("audio", WHISPER | shape)
    extract = transformers.WhisperFeatureExtractor(feature_size=bands)
    time = np.arange(int(16_000 * seconds)) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * (200 + 90 * time) * time) * (np.sin(time) > 0)
    samples = (tone + 0.01 * random.standard_normal(len(time))).astype(np.float32)
    expected = extract(samples, sampling_rate=16_000)["input_features"][0].T
    made = 2 * adapter.grid_from_power(adapter.log_mel.power(samples, 3000))[:, 0, :, 0]
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_a_grid_of_a_file_is_in_half_precision(ears, chirp, tmp_path):
    soundfile.write(tmp_path / "chirp.wav", chirp, 16_000, subtype="FLOAT")
    expected = transformers.WhisperFeatureExtractor()(chirp, sampling_rate=16_000)
    made = 2 * ears.read(tmp_path / "chirp.wav")[:, 0, :, 0].astype(np.float64)
    assert np.abs(made).max() < 2
    np.testing.assert_allclose(made, expected["input_features"][0].T, atol=5e-4)


def test_loudness_and_leading_silence_are_kept(ears, chirp, tmp_path):
    late = np.concatenate([np.zeros(8_000, np.float32), chirp / 10])
    grids = []
    for name, samples in (("chirp", chirp), ("late", late)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
        grids.append(ears.read(tmp_path / f"{name}.wav")[:, 0, :, 0].astype(np.float32))
    heard = slice(
        2, 140
    )  # 50 frames later, and power by 100 less, of which a value holds an eighth
    difference = grids[0][heard] - grids[1][50:][heard]
    assert np.abs(difference - 2 / 8).max() < 1e-2


def test_silence_of_whisper(ears, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(4_000), 16_000)
    grid = ears.read(tmp_path / "silence.wav")
    assert (grid == -0.75).all()
    ears.write(grid, tmp_path / "again.wav")
    assert not soundfile.read(tmp_path / "again.wav")[0].any()


def test_whisper_grids_there_and_back(chirp, tmp_path):
    adapter = create_adapter("audio", WHISPER | {"shape": [200, 1, 80, 1]})
    soundfile.write(tmp_path / "chirp.wav", chirp, 16_000, subtype="FLOAT")
    grid = adapter.read(tmp_path / "chirp.wav").astype(np.float32)
    adapter.write(grid, tmp_path / "again.wav")
    again = adapter.read(tmp_path / "again.wav").astype(np.float32)
    loud = grid > grid.max() - 0.25  # 20 decibels
    assert loud.sum() > 300
    assert np.abs(again - grid)[loud].mean() < 0.04


def test_augmented_whisper_grids(ears, chirp, random, tmp_path):
    soundfile.write(tmp_path / "chirp.wav", chirp, 16_000, subtype="FLOAT")
    grid = ears.read(tmp_path / "chirp.wav")
    varied = ears.augment(grid.astype(np.float32), random)
    assert varied.shape == grid.shape and varied.dtype == np.float32
    assert varied.min() >= grid.min() - 1e-6 and varied.max() <= 1
    assert (varied[1000:] == grid.min()).mean() > 0.9  # silence stays what it is
    assert 0.001 < np.abs(varied - grid)[:150].mean() < 0.3
    same = ears.augment(grid.astype(np.float32), random, 0.0)
    np.testing.assert_allclose(same, grid, atol=1e-6)


def test_forms_are_settings():
    for form, size in (("crop", 32), ("stretch", 32)):
        settings = {"form": form, "shape": [1, size, size, 3], "patch": [1, 8, 8]}
        adapter = create_adapter("image", settings)
        assert create_adapter("image", adapter.settings()) == adapter
        assert adapter != create_adapter("image", {k: settings[k] for k in ("shape", "patch")})
    assert create_adapter("audio", WHISPER).settings()["form"] == "whisper"
    with pytest.raises(ValueError, match="image: unknown form 'crp'; did you mean 'crop'"):
        create_adapter("image", {"form": "crp", "shape": [1, 8, 8, 3], "patch": [1, 8, 8]})
