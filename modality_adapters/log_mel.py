"""Waveforms <-> log-mel spectrograms.

The numbers are those of librosa.feature.melspectrogram(htk=True, norm=None, center=True,
pad_mode="constant") (the tests compare them). They are computed here because importing librosa's
spectral part compiles for seconds, and because two seconds of sound should take a millisecond.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.fft import irfft, rfft  # unlike NumPy's, these keep single precision

FITTING_STEPS = 8
PHASE_STEPS = 32
MOMENTUM = np.float32(0.99)


@dataclass(frozen=True)
class LogMel:
    """A log-mel transform.

    Args:
        rate: samples a second.
        hop: samples from one frame to the next.
        window: samples under one (Hann) window, also the length of the Fourier transform.
        bands: number of mel bands, from 0 Hz to half the rate, on the HTK scale.

    Raises ValueError when there are so many bands that some hold no frequency of the transform.
    """

    rate: int
    hop: int
    window: int
    bands: int

    def __post_init__(self):
        if (self.bank.sum(1) == 0).any():
            raise ValueError(f"{self.bands} mel bands are too many for a window of {self.window}")

    @cached_property
    def bank(self) -> np.ndarray:
        """Triangular filters, float32 (bands, window // 2 + 1): power spectrum -> mel power."""
        top = 2595 * np.log10(1 + self.rate / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, self.bands + 2) / 2595) - 1)
        frequencies = np.fft.rfftfreq(self.window, 1 / self.rate)
        low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        rising = (frequencies - low) / (middle - low)
        falling = (high - frequencies) / (high - middle)
        return np.minimum(rising, falling).clip(0).astype(np.float32)

    @cached_property
    def hann(self) -> np.ndarray:
        """Periodic Hann window, float32 (window,)."""
        turns = np.arange(self.window) / self.window
        return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)

    def power(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """Mel power (frames, bands) of samples (n,); frame i is centred on sample i * hop."""
        spectrum = self._analyse(samples, frames, self.hop)
        return (spectrum.real**2 + spectrum.imag**2) @ self.bank.T

    def samples(self, power: np.ndarray) -> np.ndarray:
        """Samples (frames * hop,) that have about this mel power (frames, bands).

        Mel to linear power, then phases by Griffin and Lim (1984) in the accelerated form of
        Perraudin et al. (2013), from a fixed random start. Frames are first interpolated so that
        windows overlap by three quarters, without which phases cannot be found.
        """
        between = next(
            (
                n
                for n in range(1, self.hop)
                if self.hop % n == 0 and self.hop // n <= self.window / 4
            ),
            self.hop,
        )
        decibels = np.log(np.maximum(power, 1e-20))
        frames = len(power)
        places = np.arange(frames * between) / between
        fine = np.stack([np.interp(places, np.arange(frames), band) for band in decibels.T], axis=1)
        return self._find_phases(np.sqrt(self._to_linear(np.exp(fine))), self.hop // between)

    def _to_linear(self, power: np.ndarray) -> np.ndarray:
        """Non-negative linear power (frames, window // 2 + 1) whose mel power is close to `power`.

        Starts from each band spread evenly and fits by multiplicative steps (Lee and Seung, KL).
        """
        bank = self.bank
        cover = bank.sum(0) + np.float32(1e-3)
        power = power.astype(np.float32)
        linear = (power / bank.sum(1)) @ bank / cover
        for _ in range(FITTING_STEPS):
            linear *= (power / (linear @ bank.T + np.float32(1e-20))) @ bank / cover
        return linear

    def _find_phases(self, magnitude: np.ndarray, hop: int) -> np.ndarray:
        frames = len(magnitude)
        random = np.random.default_rng(0)
        angles = np.exp(2j * np.pi * random.random(magnitude.shape)).astype(np.complex64)
        previous = np.zeros_like(angles)
        for _ in range(PHASE_STEPS):
            rebuilt = self._analyse(self._synthesise(magnitude * angles, hop), frames, hop)
            ahead = rebuilt + MOMENTUM * (rebuilt - previous)
            angles = ahead / np.maximum(np.abs(ahead), np.float32(1e-12))
            previous = rebuilt
        return self._synthesise(magnitude * angles, hop)

    def _analyse(self, samples: np.ndarray, frames: int, hop: int) -> np.ndarray:
        """Spectra (frames, window // 2 + 1) of windows centred on multiples of hop."""
        length = (frames - 1) * hop + self.window
        half = self.window // 2
        padded = np.zeros(length, np.float32)
        held = samples[: length - half]
        padded[half : half + len(held)] = held
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[::hop]
        return rfft(windows * self.hann)

    def _synthesise(self, spectra: np.ndarray, hop: int) -> np.ndarray:
        """Samples (frames * hop,): overlapping windows added, least squares."""
        windows = irfft(spectra, self.window) * self.hann
        frames, parts = len(windows), -(-self.window // hop)
        # Windows in pieces of one hop: piece p of frame i falls on row i + p.
        pieces = np.zeros((frames, parts * hop), np.float32)
        pieces[:, : self.window] = windows
        shape = np.zeros(parts * hop, np.float32)
        shape[: self.window] = self.hann**2
        total = np.zeros((frames + parts, hop), np.float32)
        weight = np.zeros((frames + parts, hop), np.float32)
        for p in range(parts):
            part = slice(p * hop, (p + 1) * hop)
            total[p : p + frames] += pieces[:, part]
            weight[p : p + frames] += shape[part]
        half = self.window // 2
        rebuilt = (total / np.maximum(weight, np.float32(1e-3))).ravel()
        return rebuilt[half : half + frames * hop]
