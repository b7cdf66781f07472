"""Videos: mp4, avi, webm and gif <-> grids (T, Y, X, 3) of evenly sampled frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modality_adapters.adapter import GridAdapter
from modality_adapters.errors import MediaError
from modality_adapters.frames import fit, to_grid, to_pixels, vary
from modality_adapters.video_file import VIDEO_SUFFIXES, VideoFile, open_video, write_frames

SMALLEST_SIDE = 128  # pixels of a written video


@dataclass(frozen=True)
class VideoAdapter(GridAdapter):
    """Reads T frames, the middles of T equal parts of the video, each resized like an image.

    A video of T frames gives exactly these; a shorter one repeats frames. Only the chosen frames
    are kept, at the size of the grid. The video's sound is read by the audio adapter.

    Args:
        geometry: grid (T, Y, X, 3).
        frame_rate: frames a second of written videos.
        max_pixels: videos with larger frames are refused by their header.
        max_seconds: videos that last longer are refused by their header.
    """

    name = "video"
    suffixes = VIDEO_SUFFIXES
    channels = 3

    frame_rate: float = 8.0
    max_pixels: int = 36_000_000
    max_seconds: float = 3_600.0

    def _read(self, path: Path) -> np.ndarray:
        with self._open(path) as video:
            grid = self._sample(video, video.claimed)
        if grid is None:  # some containers do not say how many frames they hold, or only about
            with self._open(path) as video:
                total = video.count_frames(self.max_seconds)
            with self._open(path) as video:
                grid = self._sample(video, total)
        if grid is None:
            raise MediaError(path, "holds no frames that can be decoded")
        return grid

    def _open(self, path: Path):
        return open_video(path, self.max_pixels, self.max_seconds)

    def _sample(self, video: VideoFile, total: int) -> np.ndarray | None:
        """The grid of a video of `total` frames; None if it has fewer."""
        count, height, width, _ = self.geometry.shape
        frames = np.zeros((count, height, width, 3), np.uint8)
        last = None
        for i in range(count):
            index = (2 * i + 1) * total // (2 * count)
            if index != last:
                pixels = video.frame(index) if total else None
                if pixels is None:
                    return None
                last = index
                frames[i] = fit(pixels, height, width)
            else:
                frames[i] = frames[i - 1]
        return to_grid(frames)

    def _write(self, grid: np.ndarray, path: Path) -> None:
        # Video codecs store colour at half the resolution and few bits for small frames. Enlarged
        # by a whole number, what is read back is within 45 dB of the grid instead of 30.
        frames = to_pixels(grid)
        factor = max(2, -(-SMALLEST_SIDE // min(frames.shape[1:3])))
        write_frames(frames.repeat(factor, 1).repeat(factor, 2), path, self.frame_rate)

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """As `vary` does, all frames alike."""
        return vary(grid, random, strength, noise=0)


ADAPTER = VideoAdapter
