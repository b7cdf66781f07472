"""Sounds as Whisper reads them (Radford et al., 2212.04356, section 2.2)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from modality_adapters.audio import AudioAdapter
from modality_adapters.files import decoding

DECADES = 8.0  # of power that are told apart below the loudest


@dataclass(frozen=True)
class WhisperAudioAdapter(AudioAdapter):
    """Reads the first T frames of a sound, from its first sample, as loud as it is.

    A value is (log10(power) + 4) / 8 of a mel band at a frame, no less than 1 below the largest of
    the sound: half of what Whisper's own extractor gives, so that it is between -1 and 1. What
    follows a shorter sound is silence.

    Args:
        geometry: grid (T, 1, bands, 1); of 30 s it has 3000 frames.
    """

    form = "whisper"

    sample_rate: int = 16_000
    hop: int = 160
    window: int = 400

    @cached_property
    def log_mel(self):
        from modality_adapters.whisper_mel import WhisperMel

        return WhisperMel(self.sample_rate, self.hop, self.window, self.geometry.shape[2])

    def grid_from_power(self, power: np.ndarray) -> np.ndarray:
        """The grid of mel power (frames, bands), any number of frames; float32 (T, 1, bands, 1)."""
        frames, _, bands, _ = self.geometry.shape
        every = np.zeros((frames, bands))
        every[: len(power)] = power[:frames]
        values = np.log10(np.maximum(every, 1e-10))
        values = np.maximum(values, values.max() - DECADES)
        return ((values + 4) / 8).astype(np.float32)[:, None, :, None]

    def samples(self, grid: np.ndarray) -> np.ndarray:
        """Samples (T * hop,) float32 in [-1, 1] that sound like a grid."""
        values = np.asarray(grid, np.float32)[:, 0, :, 0]
        heard = values > max(values.max() - 1, -0.75)
        power = np.where(heard, 10 ** (8 * np.minimum(values, 0.9) - 4), 0)
        return self.log_mel.samples(power).clip(-1, 1)

    def augment(
        self, grid: np.ndarray, random: np.random.Generator, strength: float = 1.0
    ) -> np.ndarray:
        """As of sounds in the other form, which has its silence at -1."""
        silence = 1 + grid.min()
        varied = super().augment(grid - silence, random, strength) + silence
        return np.minimum(varied, 1).astype(grid.dtype, copy=False)

    @property
    def _seconds(self) -> float:
        return self.geometry.shape[0] * self.hop / self.sample_rate

    def _grid_of(self, path: Path, samples: np.ndarray, rate: int) -> np.ndarray:
        if rate != self.sample_rate:
            import soxr

            with decoding(path):
                samples = soxr.resample(samples, rate, self.sample_rate)
        return self.grid_from_power(self.log_mel.power(samples, self.geometry.shape[0]))


ADAPTER = WhisperAudioAdapter
