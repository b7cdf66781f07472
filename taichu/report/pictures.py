"""Grids as something a browser shows: data URLs of pictures, moving pictures and sounds."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from modality_adapters.errors import MediaError
from taichu.report.solid_view import swinging
from taichu.vocabulary import TEXT

FRAME = 140  # milliseconds of a video's frame
TURN = 110  # milliseconds of a solid's view


@dataclass(frozen=True)
class Shown:
    """One thing on the page.

    Attributes:
        modality: "text" or a grid modality.
        text: the text itself, or what is read out in place of a picture.
        language: of a text, "" where none is known.
        picture: data URL; "" for text.
        sound: data URL; "" for all but sounds.
    """

    modality: str
    text: str
    language: str = ""
    picture: str = ""
    sound: str = ""


def show_text(text: str) -> Shown:
    """A text, with the language that its letters tell."""
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in text)
    return Shown(TEXT, text, "zh" if chinese else "en")


def show_grid(adapter, grid: np.ndarray) -> Shown:
    """A grid (T, Y, X, C) of a modality, as an adapter of it would write it."""
    name = adapter.name
    grid = np.clip(np.nan_to_num(np.asarray(grid, np.float32)), -1, 1)
    if name == "audio":
        return Shown(name, "spectrogram", picture=spectrogram(grid), sound=sound(adapter, grid))
    if name == "shape3d":
        frames = [Image.fromarray(frame, "RGBA") for frame in swinging(grid)]
        return Shown(name, "solid", picture=moving(frames, TURN, quality=75))
    values = _bytes(grid if grid.shape[3] == 3 else grid[..., 0])
    frames = [Image.fromarray(frame) for frame in values]
    if len(frames) > 1:
        return Shown(name, "video", picture=moving(frames, FRAME, lossless=True))
    return Shown(name, "picture", picture=_picture(frames[0]))


def spectrogram(grid: np.ndarray) -> str:
    """PNG of a grid (T, 1, bands, 1): time to the right, low bands below, louder is lighter."""
    from matplotlib import colormaps

    levels = grid[:, 0, ::-1, 0].T * 0.5 + 0.5
    return _picture(Image.fromarray(colormaps["magma"](levels, bytes=True)[..., :3]))


def sound(adapter, grid: np.ndarray) -> str:
    """The sound of a grid: mp3, which is small; wav where mp3 does not know the sample rate."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = adapter.write(grid, Path(folder) / "sound.mp3")
            kind = "mpeg"
        except MediaError:
            path = adapter.write(grid, Path(folder) / "sound.wav")
            kind = "wav"
        return data_url(f"audio/{kind}", path.read_bytes())


def moving(frames: list[Image.Image], milliseconds: int, **settings) -> str:
    """A looping WebP of the frames."""
    content = io.BytesIO()
    frames[0].save(
        content,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=milliseconds,
        loop=0,
        **settings,
    )
    return data_url("image/webp", content.getvalue())


def data_url(kind: str, content: bytes) -> str:
    """The content as a URL that stands for itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _picture(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return data_url("image/png", content.getvalue())


def _bytes(grid: np.ndarray) -> np.ndarray:
    return np.rint(grid * 127.5 + 127.5).astype(np.uint8)
