"""Samples of sound files (wav, flac, ogg, mp3) and of the sound in videos."""

from pathlib import Path

import numpy as np

from modality_adapters.errors import MediaError
from modality_adapters.files import decoding
from modality_adapters.video_header import check_container

RATES = (1_000, 384_000)  # samples a second; others are damaged headers, or no sound
BLOCK = 65_536


def read_samples(path: Path, seconds: float, max_seconds: float) -> tuple[np.ndarray, int]:
    """The first `seconds` of a sound file as one channel: float32 (n,), and samples a second.

    Refused by its header, before decoding: a sound longer than max_seconds or of zero length.
    Raises MediaError for these and for files that are damaged, truncated or hold NaN.
    """
    import soundfile

    with decoding(path), soundfile.SoundFile(path) as sound:
        rate, total = sound.samplerate, sound.frames
        _check_length(path, total, rate, max_seconds)
        if path.suffix.lower() in (".wav", ".ogg") and _is_truncated(path):
            raise MediaError(path, "is truncated")
        wanted = min(total, int(seconds * rate))
        parts, count = [], 0
        # In blocks, so that a file of a thousand channels takes no more memory than one of two.
        while count < wanted:
            size = min(BLOCK // sound.channels + 1, wanted - count)
            block = sound.read(size, dtype="float32", always_2d=True)
            if not len(block):
                raise MediaError(path, f"is truncated: {count:,} of {total:,} samples are there")
            parts.append(block.mean(1))
            count += len(block)
    return checked(path, np.concatenate(parts)), rate


def read_video_samples(path: Path, seconds: float, max_seconds: float) -> tuple[np.ndarray, int]:
    """As `read_samples`, of the first sound track of a video; needs PyAV (`pip install av`)."""
    try:
        import av
    except ImportError as error:
        raise MediaError(path, "the sound of a video needs PyAV: pip install av") from error

    check_container(path)
    parts, count = [], 0
    with decoding(path), av.open(str(path)) as container:
        if not container.streams.audio:
            raise MediaError(path, "has no sound")
        _check_seconds(path, (container.duration or 0) / av.time_base, max_seconds)
        stream = container.streams.audio[0]
        rate = stream.rate
        to_mono = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for frame in container.decode(stream):
            for mono in to_mono.resample(frame):
                parts.append(mono.to_ndarray()[0])
                count += len(parts[-1])
            if count >= seconds * rate:
                break
    _check_length(path, count, rate, max_seconds)
    return checked(path, np.concatenate(parts)[: int(seconds * rate)]), rate


def checked(path: Path, samples: np.ndarray) -> np.ndarray:
    """The samples; MediaError if any is not a finite number."""
    if not np.isfinite(samples).all():
        raise MediaError(path, "holds samples that are not finite numbers")
    return samples


def _check_length(path: Path, samples: int, rate: int, max_seconds: float) -> None:
    if samples <= 0:
        raise MediaError(path, "holds no sound: its length is zero")
    if not (RATES[0] <= rate <= RATES[1]):
        raise MediaError(path, f"has {rate:,} samples a second; supported are {RATES}")
    _check_seconds(path, samples / rate, max_seconds)


def _check_seconds(path: Path, seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        reason = f"lasts {seconds:,.0f} s, more than the limit of {max_seconds:,.0f} s"
        raise MediaError(path, reason)


def _is_truncated(path: Path) -> bool:
    """Whether a wav or ogg file ends before it should; libsndfile plays what is there instead."""
    with open(path, "rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
        if head[:4] == b"RIFF":
            claimed = int.from_bytes(head[4:], "little")
            return claimed < 0xFFFFFF00 and size < claimed + 8  # streams write the highest number
        if head[:4] != b"OggS":
            return False
        file.seek(max(0, size - 2**17))  # a page is shorter than 64 KiB
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(segments)
