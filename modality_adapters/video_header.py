"""What kind of video a file is and whether it is whole, by its outermost structure."""

from pathlib import Path
from typing import BinaryIO

from modality_adapters.errors import MediaError

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_container(path: Path) -> None:
    """MediaError unless the file begins as an mp4, avi, webm or gif does and is not cut short.

    FFmpeg would go by content, follow a playlist in a text file to other places, and play what is
    left of a truncated file.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(12)
        file.seek(0)
        if head[4:8] in MP4_BOXES:
            whole = _mp4_end(file, size) <= size
        elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
            whole = int.from_bytes(head[4:8], "little") + 8 <= size
        elif head[:4] == EBML:
            whole = _webm_end(file, size) <= size
        elif head[:4] == b"GIF8":
            file.seek(max(0, size - 16))
            whole = b"\x3b" in file.read()  # the trailer; some programs write a few bytes after it
        else:
            raise MediaError(path, "is not a video: it does not begin as mp4, avi, webm or gif do")
    if not whole:
        raise MediaError(path, "is truncated")


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last of the boxes ends: each begins with its length and name."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return size + 1
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(head[8:], "big")
        elif length == 0:  # to the end of the file
            return size
        if length < 8:
            return size + 1
        place += length
    return place


def _webm_end(file: BinaryIO, size: int) -> int:
    """Where the segment that follows the EBML header ends."""
    file.seek(4)
    header = _read_ebml_length(file)
    if header is None:
        return size + 1
    file.seek(header, 1)
    if file.read(4) != SEGMENT:
        return size + 1
    length = _read_ebml_length(file)
    return size if length is None else file.tell() + length


def _read_ebml_length(file: BinaryIO) -> int | None:
    """A number whose leading zero bits say how many bytes it has; None if unknown (all ones)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    mask = (1 << (7 - more)) - 1
    number = int.from_bytes(bytes([first[0] & mask]) + file.read(more), "big")
    return None if number == (1 << 7 * (more + 1)) - 1 else number
