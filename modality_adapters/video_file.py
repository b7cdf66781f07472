"""Video files through OpenCV: checks by the header, chosen frames without holding the others."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from modality_adapters.errors import MediaError
from modality_adapters.files import decoding
from modality_adapters.video_header import check_container

VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".gif")
SEEK_DISTANCE = 250  # frames; shorter ways are decoded through, which is exact and often faster
TRACK_NUMBER = b"\x73\xc5\x88"  # the element TrackUID of webm, of 8 bytes
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}


@contextmanager
def open_video(path: Path, max_pixels: int, max_seconds: float) -> Iterator["VideoFile"]:
    """The video of a file, closed at the end of the block.

    Raises MediaError when it is no video, its frames have more than max_pixels pixels or it claims
    to last longer than max_seconds: by the header, before frames are decoded.
    """
    check_container(path)
    capture = cv2.VideoCapture()
    try:
        with decoding(path):
            # The FFmpeg backend only: others would take a file name for a pattern or a pipeline.
            capture.open(str(path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise MediaError(path, "cannot be decoded: damaged, truncated, or holds no frames")
        video = VideoFile(path, capture)
        if video.width * video.height > max_pixels:
            size = f"{video.width:,} x {video.height:,}"
            raise MediaError(path, f"has frames of {size} pixels, over the limit {max_pixels:,}")
        if video.seconds > max_seconds:
            reason = f"lasts {video.seconds:,.0f} s, more than the limit of {max_seconds:,.0f} s"
            raise MediaError(path, reason)
        yield video
    finally:
        capture.release()


class VideoFile:
    """An open video, read forward once."""

    def __init__(self, path: Path, capture):
        self.path = path
        self.capture = capture
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.claimed = int(max(0, min(capture.get(cv2.CAP_PROP_FRAME_COUNT), 2**40)))
        self.position = 0  # index of the next frame

    @property
    def seconds(self) -> float:
        """How long the header says that it lasts; 0 if it does not."""
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        return self.claimed / rate if rate > 0 else 0.0

    def frame(self, index: int) -> np.ndarray | None:
        """RGB pixels uint8 (h, w, 3) of a frame not before the last one; None past the end."""
        with decoding(self.path):
            if index - self.position > SEEK_DISTANCE:
                self.capture.set(cv2.CAP_PROP_POS_FRAMES, index)
                self.position = index
            while self.position <= index:
                if not self.capture.grab():
                    return None
                self.position += 1
            found, pixels = self.capture.retrieve()
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if found else None

    def count_frames(self, max_seconds: float) -> int:
        """How many frames can be decoded; reads to the end. MediaError past max_seconds."""
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        most = max_seconds * (rate if 0 < rate <= 1000 else 30)
        with decoding(self.path):
            while self.capture.grab():
                self.position += 1
                if self.position > most:
                    raise MediaError(self.path, f"lasts more than {max_seconds:,.0f} s")
        return self.position


def write_frames(frames: Sequence[np.ndarray], path: Path, rate: float) -> None:
    """Write RGB frames uint8 (h, w, 3) of one size, `rate` a second."""
    if path.suffix.lower() == ".gif":
        _write_gif(frames, path, rate)
        return
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
    with _quiet_stderr():
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, (width, height))
    try:
        if not writer.isOpened():
            raise MediaError(path, "cannot be encoded by this build of OpenCV")
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    if path.suffix.lower() == ".webm":
        path.write_bytes(_with_fixed_identity(path.read_bytes()))


def _with_fixed_identity(webm: bytes) -> bytes:
    """The same video with 1 for its random track number: equal grids make equal files."""
    start = webm.find(TRACK_NUMBER) + len(TRACK_NUMBER)
    return webm.replace(webm[start : start + 8], (1).to_bytes(8, "big"))


def _write_gif(frames: Sequence[np.ndarray], path: Path, rate: float) -> None:
    from PIL import Image  # OpenCV's wheels read gif (by FFmpeg) but do not write it

    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=max(20, round(1000 / rate)),
        loop=0,
        optimize=False,
    )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence a remark on tags that OpenCV prints for webm past every logging switch."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
