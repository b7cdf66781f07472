"""Sounds: wav, flac, ogg, mp3 (and the sound of videos) <-> log-mel grids (T, 1, bands, 1)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from modality_adapters.adapter import GridAdapter
from modality_adapters.errors import MediaError
from modality_adapters.files import decoding, require_file
from modality_adapters.sound_file import read_samples, read_video_samples
from modality_adapters.video_file import VIDEO_SUFFIXES

LONGEST_LEAD = 30.0  # seconds of leading silence that are looked through
SUBTYPES = {".wav": "PCM_16", ".flac": "PCM_16"}
PACE = TRACT = 0.12  # shares by which `augment` stretches time and frequency at most
PEAK = 0.8  # of written samples: loud, and clear of clipping by lossy formats


@dataclass(frozen=True)
class AudioAdapter(GridAdapter):
    """Reads a sound as the log-mel spectrogram of its first T frames, whatever its loudness.

    Channels are mixed and resampled, and leading silence is dropped, so that a sound stands at the
    same place however it was recorded. A value is the power of a band at a frame in decibels below
    the loudest of the sound: 1 is that loudest, -1 is `decibels` below it or less. What is
    shorter than the grid is followed by silence (-1), what is longer is cut.

    Args:
        geometry: grid (T, 1, bands, 1).
        sample_rate: samples a second after resampling.
        hop: samples from frame to frame (320 at 8 kHz: 40 ms).
        window: samples under one window and length of the Fourier transform.
        decibels: range of loudness that the values -1 to 1 stand for.
        silence: decibels below the loudest moment under which leading sound is dropped.
        max_seconds: longer sounds are refused by their header, before decoding.
    """

    name = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".mp3")
    channels = 1
    flat_axes = (1,)

    sample_rate: int = 8_000
    hop: int = 320
    window: int = 512
    decibels: float = 80.0
    silence: float = 40.0
    max_seconds: float = 600.0

    def __post_init__(self):
        super().__post_init__()
        self.log_mel  # noqa: B018  settings that do not fit together are refused at once

    @cached_property
    def log_mel(self):
        """The transform `LogMel` of these settings."""
        from modality_adapters.log_mel import LogMel  # SciPy takes its time to import

        return LogMel(self.sample_rate, self.hop, self.window, self.geometry.shape[2])

    def read(self, path: str | Path) -> np.ndarray:
        """The grid of a sound file, or of a video's sound (with PyAV); see the class.

        Raises MediaError for anything that cannot be read whole, before much memory is used.
        """
        if Path(path).suffix.lower() not in VIDEO_SUFFIXES:
            return super().read(path)
        path = require_file(path, VIDEO_SUFFIXES)
        return self._grid_of(path, *read_video_samples(path, self._seconds, self.max_seconds))

    def grid_from_power(self, power: np.ndarray) -> np.ndarray:
        """The grid of mel power (frames, bands), any number of frames; float16 (T, 1, bands, 1)."""
        frames, _, bands, _ = self.geometry.shape
        power = np.asarray(power, np.float32)[:frames]
        loudest = power.max(initial=0)
        grid = np.full((frames, 1, bands, 1), -1, np.float32)
        if loudest > 0:
            floor = np.float32(10 ** (-self.decibels / 10))
            below = 10 * np.log10(np.maximum(power / loudest, floor))
            grid[: len(power), 0, :, 0] = np.maximum(1 + below * (2 / self.decibels), -1)
        return grid.astype(np.float16)

    def samples(self, grid: np.ndarray) -> np.ndarray:
        """Samples (T * hop,) float32 in [-1, 1] that sound like a grid."""
        values = np.asarray(grid, np.float32)[:, 0, :, 0]
        if values.max() <= -1:
            return np.zeros(len(values) * self.hop, np.float32)
        power = np.where(values > -1, 10 ** ((values - 1) * (self.decibels / 20)), 0)
        samples = self.log_mel.samples(power)
        return samples * np.float32(PEAK / max(np.abs(samples).max(), 1e-9))

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """Say it faster or slower, by a longer or shorter vocal tract (Jaitly and Hinton, ICML
        workshop 2013) and up to 1 frame earlier or later; vary level and tilt a little, now and
        then silence a stripe.

        A word is ten frames long: shifted by more than one of them, too much of it is gone.
        """
        frames, _, bands, _ = grid.shape
        draws = random.random(6, np.float32)
        even = (2 * draws - 1) * np.float32(strength)
        pace, tract = 1 + PACE * even[0], 1 + TRACT * even[1]
        # where the value of each (band, frame) comes from
        source = np.array([[tract, 0, 0], [0, pace, even[2]]], np.float32)
        varied = cv2.warpAffine(
            np.asarray(grid[:, 0, :, 0], np.float32),
            source,
            (bands, frames),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderValue=-1,
        )
        # Scaled above silence, so that silence stays what it is.
        level, tilt = 1 - 0.02 * strength + 0.06 * even[3], 0.06 * even[4]
        gain = np.linspace(level - tilt, level + tilt, bands, dtype=np.float32)
        varied *= gain
        varied += gain - 1
        if draws[5] < 0.25 * strength:
            axis, size = (0, frames) if random.random() < 0.5 else (1, bands)
            width = 1 + int(random.random() * (size // 16))
            start = int(random.random() * (size - width + 1))
            varied[(slice(None),) * axis + (slice(start, start + width),)] = -1
        return np.clip(varied, -1, 1)[:, None, :, None].astype(grid.dtype, copy=False)

    @property
    def _seconds(self) -> float:
        """How much of a file is decoded at most."""
        return LONGEST_LEAD + (self.geometry.shape[0] * self.hop + self.window) / self.sample_rate

    def _read(self, path: Path) -> np.ndarray:
        return self._grid_of(path, *read_samples(path, self._seconds, self.max_seconds))

    def _grid_of(self, path: Path, samples: np.ndarray, rate: int) -> np.ndarray:
        if rate != self.sample_rate:
            import soxr

            with decoding(path):
                samples = soxr.resample(samples, rate, self.sample_rate)
        samples = samples[self._start(samples) :]
        # All frames of a short sound, but none that lies beyond its end.
        frames = min(self.geometry.shape[0], 1 + len(samples) // self.hop)
        return self.grid_from_power(self.log_mel.power(samples, frames))

    def _start(self, samples: np.ndarray) -> int:
        """The sample at which silence ends, to a hundredth of a second."""
        size = max(1, self.sample_rate // 100)
        blocks = samples[: len(samples) // size * size].reshape(-1, size)
        loudness = np.einsum("ij,ij->i", blocks, blocks)
        if not len(loudness) or not loudness.max() > 0:
            return 0
        audible = loudness > loudness.max() * 10 ** (-self.silence / 10)
        return max(0, int(audible.argmax()) - 1) * size

    def _write(self, grid: np.ndarray, path: Path) -> None:
        import soundfile

        subtype = SUBTYPES.get(path.suffix.lower())
        try:
            soundfile.write(path, self.samples(grid), self.sample_rate, subtype=subtype)
        except soundfile.LibsndfileError as error:  # e.g. mp3 and ogg know only some rates
            raise MediaError(path, f"cannot be encoded: {error.error_string}") from error


ADAPTER = AudioAdapter
