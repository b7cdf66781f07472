"""Adapters in the settings of the nano model, and real files to read."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn

from modality_adapters import create_adapter

NANO = {
    "image": {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]},
    "audio": {"shape": [64, 1, 32, 1], "patch": [8, 1, 16]},
    "video": {"shape": [8, 32, 32, 3], "patch": [2, 16, 16]},
    "shape3d": {"shape": [18, 18, 18, 1], "patch": [6, 6, 6]},
    "depth": {"shape": [1, 32, 32, 1], "patch": [1, 8, 8]},
}


@pytest.fixture(scope="session")
def nano() -> dict[str, dict]:
    """Settings by modality."""
    return NANO


@pytest.fixture(scope="session")
def adapters():
    return {name: create_adapter(name, settings) for name, settings in NANO.items()}


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """Real pictures that scikit-learn and scikit-image install."""
    sklearn_images = Path(sklearn.__file__).parent / "datasets" / "images"
    skimage_data = Path(skimage.__file__).parent / "data"
    return {
        "china": sklearn_images / "china.jpg",
        "flower": sklearn_images / "flower.jpg",
        "astronaut": skimage_data / "astronaut.png",
        "camera": skimage_data / "camera.png",
        "logo": skimage_data / "logo.png",
        "multipage": skimage_data / "multipage.tif",
        "clip": skimage_data / "no_time_for_that_tiny.gif",
    }


@pytest.fixture(scope="session")
def chirp() -> np.ndarray:
    """1.5 s at 16 kHz: a rising tone of three bursts over faint noise."""
    time = np.arange(24_000) / 16_000
    bursts = np.sin(2 * np.pi * 2 * time) > -0.3
    noise = np.random.default_rng(1).standard_normal(len(time))
    tone = np.sin(2 * np.pi * (300 + 500 * time) * time) * bursts
    return (0.5 * tone + 0.001 * noise).astype(np.float32)
