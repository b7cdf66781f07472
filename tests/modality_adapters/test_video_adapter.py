import time

import cv2
import numpy as np
import pytest

from modality_adapters import create_adapter
from modality_adapters.frames import to_grid


@pytest.fixture
def grid():
    """A red seven that moves to the right, float16 (8, 32, 32, 3)."""
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    for i, frame in enumerate(frames):
        cv2.putText(frame, "7", (2 + 2 * i, 26), 0, 0.8, (230, 60, 30), 2, cv2.LINE_AA)
    return to_grid(frames)


def decibels(grid, other) -> float:
    """PSNR of values in [-1, 1]."""
    error = np.mean((np.float32(grid) - np.float32(other)) ** 2)
    return 10 * np.log10(4 / max(error, 1e-10))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".gif"])
def test_there_and_back(suffix, grid, adapters, tmp_path):
    path = adapters["video"].write(grid, tmp_path / f"a{suffix}")
    again = adapters["video"].read(path)
    assert again.shape == grid.shape and again.dtype == np.float16
    assert decibels(grid, again) > 38
    assert np.abs(np.float32(again) - grid).mean((0, 1, 2)).max() < 0.03  # each colour


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".gif"])
def test_written_videos_are_always_the_same(suffix, grid, adapters, tmp_path):
    one = adapters["video"].write(grid, tmp_path / f"1{suffix}").read_bytes()
    time.sleep(1.1)  # another second on the clock
    assert one == adapters["video"].write(grid, tmp_path / f"2{suffix}").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 8, 20, 24])
def test_frames_are_sampled_evenly(count, adapters, tmp_path):
    writer = create_adapter("video", {"shape": [count, 32, 32, 3], "patch": [1, 16, 16]})
    levels = np.linspace(-0.8, 0.8, count)
    frames = np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3))
    path = writer.write(frames, tmp_path / "a.mp4")
    seen = adapters["video"].read(path).mean((1, 2, 3), dtype=np.float64)
    chosen = [(2 * i + 1) * count // 16 for i in range(8)]
    assert np.abs(seen[:, None] - levels).argmin(1).tolist() == chosen
    if count == 8:
        assert chosen == list(range(8))


def test_far_frames_are_found_by_seeking(adapters, tmp_path):
    writer = create_adapter("video", {"shape": [2400, 16, 16, 3], "patch": [1, 16, 16]})
    levels = np.linspace(-0.8, 0.8, 2400)
    frames = np.broadcast_to(levels[:, None, None, None], (2400, 16, 16, 3))
    path = writer.write(frames, tmp_path / "long.avi")
    seen = adapters["video"].read(path).mean((1, 2, 3), dtype=np.float64)
    assert np.abs(seen - levels[150::300]).max() < 0.03


def test_a_real_clip(adapters, photos):
    grid = adapters["video"].read(photos["clip"])
    assert grid.shape == (8, 32, 32, 3)
    assert (grid[:, :, 0] == -1).all()  # 14 pixels wide and 25 high: black at the sides
    assert np.abs(np.diff(np.float32(grid), axis=0)).mean() > 0.01
