"""Digits drawn as pictures and moved as clips, written as png and mp4; and cut out again.

Arrays are RGB. A handwriting is a (28, 28) uint8 MNIST digit; its ink lies in the inner 20 x 20.
"""

from pathlib import Path

import cv2
import numpy as np

SIZE = 32  # pixels a side of a picture and of a frame
FRAMES = 8
FRAMES_A_SECOND = 8
# No colour is without one of the channels: what shape a digit has can then be read from each.
RGB = {
    "red": (255, 100, 100),
    "green": (100, 240, 100),
    "blue": (115, 140, 255),
    "yellow": (250, 225, 80),
    "purple": (225, 110, 250),
    "cyan": (90, 225, 235),
    "white": (255, 255, 255),
}
PICTURE_INK = 28  # the 20 x 20 ink box is scaled to this many pixels ...
PICTURE_STEP = 2  # ... and moved by this many from the centre towards its place
STEPS = {
    "top left": (-1, -1),
    "top right": (-1, 1),
    "bottom left": (1, -1),
    "bottom right": (1, 1),
    "centre": (0, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
}  # (rows, columns)
CLIP_INK = 24
CLIP_TRAVEL = 7.0  # pixels from the first frame to the last, of the 8 that are free
# Clips are stored twice as large as they are read: mp4 keeps colour at half the resolution only.
CLIP_SCALE = 2


def picture(handwriting: np.ndarray, colour: str, place: str) -> np.ndarray:
    """(32, 32, 3) uint8: one digit in a colour, moved towards a corner or left in the centre."""
    rows, columns = STEPS[place]
    ink = _scaled_ink(handwriting, PICTURE_INK)
    return _paint(ink, colour, rows * PICTURE_STEP, columns * PICTURE_STEP)


def clip(
    handwriting: np.ndarray, colour: str, direction: str, random: np.random.Generator
) -> np.ndarray:
    """(8, 32, 32, 3) uint8: one digit in a colour that moves evenly and stays inside.

    Across its direction it is up to 1.5 pixels off the centre.
    """
    rows, columns = STEPS[direction]
    ink = _scaled_ink(handwriting, CLIP_INK)
    aside = random.uniform(-1.5, 1.5)
    along = np.linspace(-0.5, 0.5, FRAMES) * CLIP_TRAVEL
    return np.stack(
        [
            _paint(
                ink,
                colour,
                rows * step + (aside if rows == 0 else 0.0),
                columns * step + (aside if columns == 0 else 0.0),
            )
            for step in along
        ]
    )


def write_picture(pixels: np.ndarray, path: Path) -> None:
    """Write (Y, X, 3) uint8 RGB as png."""
    if not cv2.imwrite(str(path), pixels[:, :, ::-1]):
        raise OSError(f"{path}: could not be written")


def write_clip(frames: np.ndarray, path: Path) -> None:
    """Write (T, Y, X, 3) uint8 RGB as mp4 (MPEG-4 part 2), enlarged by `CLIP_SCALE`."""
    height, width = (CLIP_SCALE * side for side in frames.shape[1:3])
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, FRAMES_A_SECOND, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path}: this OpenCV cannot write mp4")
    for frame in frames:
        large = cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST)
        writer.write(np.ascontiguousarray(large[:, :, ::-1]))
    writer.release()


def centre_digit(frames: np.ndarray) -> np.ndarray:
    """Cut the digit out of a clip or picture: (T, Y, X, 3) in [-1, 1] -> (28, 28) in [0, 1].

    Float32. Colour goes (maximum over channels), every frame is moved so that its centre of mass
    is in the middle, as MNIST is centred, and the frames are averaged. What evaluation reads
    digits from.
    """
    ink = np.clip((np.asarray(frames, dtype=np.float32).max(axis=-1) + 1) / 2, 0, 1)
    ink = np.where(
        ink > 0.15, ink, 0
    )  # compression leaves specks, which would draw the centre away
    return np.mean([_centred(frame) for frame in ink], axis=0)


def _centred(ink: np.ndarray) -> np.ndarray:
    """(Y, X) ink moved so that its centre of mass is in the middle of (28, 28)."""
    mass = ink.sum()
    height, width = ink.shape
    row = (ink.sum(axis=1) @ np.arange(height)) / mass if mass > 0 else (height - 1) / 2
    column = (ink.sum(axis=0) @ np.arange(width)) / mass if mass > 0 else (width - 1) / 2
    move = np.float32([[1, 0, 13.5 - column], [0, 1, 13.5 - row]])
    return cv2.warpAffine(ink, move, (28, 28), flags=cv2.INTER_LINEAR)


def _scaled_ink(handwriting: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 ink in [0, 1] of the 20 x 20 box that holds an MNIST digit."""
    box = handwriting[4:24, 4:24].astype(np.float32) / 255
    return cv2.resize(box, (side, side), interpolation=cv2.INTER_LINEAR)


def _paint(ink: np.ndarray, colour: str, rows: float, columns: float) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: ink in a colour on black, moved from the centre (pixels)."""
    corner = (SIZE - ink.shape[0]) / 2
    move = np.float32([[1, 0, corner + columns], [0, 1, corner + rows]])
    canvas = cv2.warpAffine(ink, move, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return np.rint(canvas[:, :, None] * np.float32(RGB[colour])).astype(np.uint8)
