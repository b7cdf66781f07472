"""Whisper's mel spectrogram: Slaney's mel scale, and windows that reach beyond the ends."""

from functools import cached_property

import numpy as np
from scipy.fft import rfft

from modality_adapters.log_mel import LogMel

LINEAR_TO = 1000.0  # Hz, up to where Slaney's scale is linear
STEP = 200 / 3  # Hz a mel there
RATIO = 6.4 ** (1 / 27)  # from one mel to the next above it


class WhisperMel(LogMel):
    """As `LogMel`, of the numbers of librosa.feature.melspectrogram(pad_mode="reflect") of a sound
    that silence follows."""

    @cached_property
    def bank(self) -> np.ndarray:
        """Triangles of equal area in Hz, float32 (bands, window // 2 + 1)."""
        bend = LINEAR_TO / STEP
        top = bend + np.log(self.rate / 2 / LINEAR_TO) / np.log(RATIO)
        mels = np.linspace(0, top, self.bands + 2)
        edges = np.where(mels < bend, mels * STEP, LINEAR_TO * RATIO ** (mels - bend))
        frequencies = np.fft.rfftfreq(self.window, 1 / self.rate)
        low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        rising = (frequencies - low) / (middle - low)
        falling = (high - frequencies) / (high - middle)
        return (np.minimum(rising, falling).clip(0) * 2 / (high - low)).astype(np.float32)

    def power(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """Mel power (frames, bands), float64, of samples (n,) that frames * hop are read of; frame
        i is centred on sample i * hop."""
        whole = np.zeros(frames * self.hop)
        whole[: len(samples)] = samples[: len(whole)]
        half = self.window // 2
        padded = np.pad(whole, half, "reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        spectrum = rfft(windows[:frames] * self.hann)
        return (spectrum.real**2 + spectrum.imag**2) @ self.bank.T.astype(np.float64)
