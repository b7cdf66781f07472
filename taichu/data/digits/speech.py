"""Spoken digits as waves: human MFCC turned back into sound, and captions said by espeak-ng.

The human recordings (FSDD) are only to be had as MFCC: 13 numbers every 25 ms. `wave_of_mfcc`
makes a sound whose MFCC are those numbers again. What was said and the broad shape of the spectrum
are the speaker's; pitch and the fine structure, which 13 MFCC do not hold, are made up here.
"""

import ctypes
import shutil
import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
import soxr

from taichu.data.digits.sources import INSTALL

RATE = 8000  # samples a second of every wave written here
LONGEST = 2.4  # seconds a spoken caption may take
HOP = 200  # samples between two MFCC frames
FFT = 400
MEL = 128
MFCC = 13
FLOOR_DB = 80.0  # nothing counts that is more than this below the loudest
ROUNDS = 6  # corrections of the envelope in `wave_of_mfcc`

# espeak-ng: language of the caption -> accents, and the speakers ("variants") of both languages.
ACCENTS = {"en": ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029"), "zh": ("cmn",)}
TRAIN_SPEAKERS = (
    ("m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f5", "Alex", "Andy", "Annie", "Denis")
    + ("Gene", "Lee", "Mario", "Michael", "Reed", "adam", "anika", "antonio", "aunty", "belinda")
    + ("boris", "david", "ed", "edward", "ian", "iven", "john", "linda", "max", "miguel", "norbert")
    + ("paul", "quincy", "rob", "sandro", "steph", "victor", "zac")
)
TEST_SPEAKERS = (
    "m5",
    "m8",
    "f4",
    "Alicia",
    "Hugo",
    "Mike",
    "benjamin",
    "caleb",
    "gustave",
    "marcelo",
) + ("pablo", "robert", "shelby", "travis")


def write_wave(samples: np.ndarray, path: Path) -> None:
    """Write (n,) float samples in [-1, 1] as a 16-bit wav at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


# --- human speech from MFCC -----------------------------------------------------------------------


def mfcc(samples: np.ndarray) -> np.ndarray:
    """(n,) samples at 8 kHz -> (1 + n // 200, 13) MFCC as FSDD's are made.

    Hann window of 400 samples, hop 200, reflected ends, power, 128 HTK mel bands, dB with a range
    of 80, orthonormal DCT-II, the first 13.
    """
    tables = _tables()
    spectra = _spectra(samples, HOP)
    power = spectra.real**2 + spectra.imag**2
    decibels = 10 * np.log10(np.maximum(power @ tables.bank.T, 1e-10))
    return np.maximum(decibels, decibels.max() - FLOOR_DB) @ tables.cosines.T


def wave_of_mfcc(target: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A wave ((frames - 1) * 200 float32 samples in [-1, 1]) with the MFCC `target` (frames, 13).

    Pulses where the sound is voiced and noise elsewhere are filtered by the smooth spectrum that
    the MFCC describe; the spectrum is then corrected a few times by the error of the MFCC of what
    came out. The error left is about 1 (dB, mean absolute); MFCC range over hundreds.
    """
    tables = _tables()
    target = np.asarray(target, dtype=np.float32)
    length = (len(target) - 1) * HOP
    excitation = _spectra(_excitation(target, length, random), HOP // 2)
    coefficients = target.copy()
    best, least = None, np.inf
    for _ in range(ROUNDS):
        decibels = np.clip(coefficients @ tables.envelope - tables.offset, -120, 60)
        fine = np.repeat(decibels, 2, axis=0)[:-1]  # frames every 100 samples, halves between
        fine[1::2] = (decibels[1:] + decibels[:-1]) / 2
        filtered = excitation * np.exp(fine * np.float32(np.log(10) / 20))
        samples = _overlap(filtered, HOP // 2, length)
        error = target - mfcc(samples)
        if np.abs(error).mean() < least:
            best, least = samples, np.abs(error).mean()
        coefficients += 0.8 * error @ tables.correction
    return (best / max(1.0, np.abs(best).max())).astype(np.float32)


def _excitation(target: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) flat-spectrum source of unit power: pulses in voiced frames, noise in others."""
    noise = random.standard_normal(length)
    pitch = random.uniform(95, 210) * np.linspace(1.06, 0.9, length)  # Hz, falling as in a word
    phase = np.cumsum(pitch / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0) * np.sqrt(RATE / pitch)
    # The second coefficient is high where low bands are louder than high ones: voiced sound.
    voiced = np.clip(target[:, 1] / 40 + 0.5, 0.0, 0.9)
    mix = np.interp(np.arange(length), np.arange(len(target)) * HOP, voiced)
    return (np.sqrt(mix) * pulses + np.sqrt(1 - mix) * noise).astype(np.float32)


def _spectra(samples: np.ndarray, hop: int) -> np.ndarray:
    """(1 + n // hop, 201) complex short-time spectra, hann window of 400, reflected ends."""
    padded = np.pad(np.asarray(samples, np.float32), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::hop]
    return scipy.fft.rfft(frames * _window(), axis=1)


def _overlap(spectra: np.ndarray, hop: int, length: int) -> np.ndarray:
    """(length,) samples: the windowed inverse of `_spectra`, for a hop that divides 400."""
    frames = scipy.fft.irfft(spectra, FFT, axis=1) * _window()
    total = _added(frames, hop)
    weight = _added(np.broadcast_to(_window() ** 2, frames.shape), hop)
    return (total / np.maximum(weight, 1e-6))[FFT // 2 : FFT // 2 + length]


def _added(frames: np.ndarray, hop: int) -> np.ndarray:
    """((n - 1) * hop + 400,) sum of frames (n, 400) that start every `hop` samples."""
    parts = FFT // hop
    total = np.zeros((len(frames) + parts - 1, hop), np.float32)
    for part in range(parts):
        total[part : part + len(frames)] += frames[:, part * hop : (part + 1) * hop]
    return total.ravel()


@cache
def _window() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


class _Tables(NamedTuple):
    bank: np.ndarray  # (128, 201) mel filters
    cosines: np.ndarray  # (13, 128) DCT: dB of the bands -> MFCC
    envelope: np.ndarray  # (13, 201) MFCC -> dB of the smooth mel spectrum at each frequency
    offset: np.ndarray  # (201,) dB of the band's width and of the window, to be taken off that
    correction: np.ndarray  # (13, 13) error of the MFCC -> change of the envelope's MFCC


@cache
def _tables() -> _Tables:
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MEL + 2) / 2595) - 1)
    frequencies = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(0.0, np.minimum(rising, falling))
    orders = np.arange(MFCC)[:, None]
    scale = np.where(orders == 0, np.sqrt(1 / MEL), np.sqrt(2 / MEL))
    cosines = scale * np.cos(np.pi * orders * (np.arange(MEL) + 0.5) / MEL)
    band = 2595 * np.log10(1 + frequencies / 700) / top * (MEL + 1) - 1
    band = np.clip(band, 0, MEL - 1)
    envelope = scale * np.cos(np.pi * orders * (band + 0.5) / MEL)
    width = np.interp(band, np.arange(MEL), (edges[2:] - edges[:-2]) / 2 / (RATE / FFT))
    offset = 10 * np.log10(width * (_window() ** 2).sum())
    # Low bands that lie between two frequencies of the FFT are empty and answer to no envelope.
    filled = bank.max(axis=1) > 0
    correction = np.linalg.inv((cosines * filled) @ cosines.T)
    tables = (bank, cosines, envelope, offset, correction)
    return _Tables(*(table.astype(np.float32) for table in tables))


# --- synthetic speech -----------------------------------------------------------------------------


class Espeak:
    """espeak-ng as a function of text: `say` gives samples at 8 kHz.

    Its noise and flutter run on from call to call, so only a whole sequence of calls on a new
    instance is reproducible. Each instance therefore loads its own copy of the library.
    """

    SYNCHRONOUS = 2
    UTF8 = 1
    SPEED, PITCH = 1, 3  # parameters: words a minute; 0 to 100

    def __init__(self, seed: int) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ModuleNotFoundError(f"espeakng-loader is not installed: {INSTALL}") from error
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(espeakng_loader.get_library_path(), folder)
            self._library = ctypes.CDLL(copy)
        data = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(self.SYNCHRONOUS, 0, data, 0)
        if self._rate <= 0:
            raise OSError("espeak-ng does not start")
        self._pieces: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # kept: C holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(seed)

    def say(self, text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
        """(n,) float32 samples in [-1, 1] at 8 kHz, at most `LONGEST` seconds.

        voice such as "en-us+f2"; speed in words a minute (said faster if it would be too long);
        pitch 0 to 100. ValueError for an unknown voice, OSError if no sound comes.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(self.PITCH, pitch, 0)
        samples = self._synthesise(text, speed)
        while len(samples) > LONGEST * RATE:
            speed = round(speed * 1.15)
            samples = self._synthesise(text, speed)
        return samples

    def _synthesise(self, text: str, speed: int) -> np.ndarray:
        self._library.espeak_SetParameter(self.SPEED, speed, 0)
        self._pieces.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, self.UTF8, None, None)
        if not self._pieces:
            raise OSError(f"espeak-ng said nothing for {text!r}")
        sound = np.concatenate(self._pieces).astype(np.float32) / 32768
        return np.clip(soxr.resample(sound, self._rate, RATE), -1, 1)

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
