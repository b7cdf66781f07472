"""What an image file says of itself, read without decoding: size, kind of pixels, completeness."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from modality_adapters.errors import MediaError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class ImageHeader:
    width: int
    height: int
    mode: str  # kind of pixels, by Pillow's name, such as RGB or I;16
    transparent: bool  # has an alpha channel that is still to be applied

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_encoded(path: Path, max_pixels: int) -> tuple[ImageHeader, np.ndarray]:
    """Header and bytes of an image file; MediaError if it is none, is cut short, or has more pixels
    than the limit, before memory is taken for them."""
    with open(path, "rb") as file:
        header = read_header(path, file)
        if header.pixels > max_pixels:
            size = f"{header.width:,} x {header.height:,}"
            raise MediaError(path, f"has {size} pixels, over the limit {max_pixels:,}")
        # 16 bytes a pixel is more than any of the formats needs (4 x 32 bits).
        return header, np.frombuffer(file.read(16 * header.pixels + 2**20), np.uint8)


def read_header(path: Path, file: BinaryIO) -> ImageHeader:
    """Header of the open image file, which is rewound; MediaError if it is none or is cut short."""
    try:
        with Image.open(file, formats=FORMATS) as image:  # lazy: decodes no pixel
            kind = image.format
            transparent = "A" in image.getbands() or "transparency" in image.info
            # OpenCV's tiff decoder gives colours that are multiplied by alpha already.
            transparent = transparent and kind != "TIFF"
            header = ImageHeader(*image.size, image.mode, transparent)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(path, f"has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise MediaError(path, "is not an image, or its header is damaged") from error
    except Exception as error:  # damaged headers raise struct.error, SyntaxError, KeyError ...
        raise MediaError(path, f"has a damaged header: {error}") from error
    file.seek(0)
    if not _is_complete(kind, file):
        raise MediaError(path, "is truncated")
    file.seek(0)
    return header


def _is_complete(kind: str, file: BinaryIO) -> bool:
    """Whether the end that the format prescribes is there.

    OpenCV fills the missing part of some truncated files with grey and calls them read.
    """
    if kind == "PNG":
        return _png_is_complete(file)
    if kind in ("JPEG", "MPO"):
        return _jpeg_is_complete(file)
    if kind == "WEBP":
        size = int.from_bytes(file.read(8)[4:], "little")
        return file.seek(0, 2) >= size + 8
    return True  # bmp and tiff: the decoders miss the missing rows themselves


def _png_is_complete(file: BinaryIO) -> bool:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IEND":
            return len(file.read(4)) == 4
        file.seek(length + 4, 1)
    return False


def _jpeg_is_complete(file: BinaryIO) -> bool:
    """An end marker after the start of the scan (one before it belongs to a thumbnail)."""
    file.seek(2)
    while len(marker := file.read(2)) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # a fill byte
            file.seek(-1, 1)
            continue
        length = int.from_bytes(file.read(2), "big")
        file.seek(length - 2, 1)
        if marker[1] == 0xDA:
            return b"\xff\xd9" in file.read()
    return False
