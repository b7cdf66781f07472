"""Checks of an NVIDIA machine: the driver, the cards and the wheels of the extra `gpu`."""

import os
import shutil
from functools import partial
from importlib import metadata

from ascend import cuda
from ascend.doctor.check import BROKEN, MISSING, OK, Finding, Places, ask


def check_driver(places: Places) -> Finding:
    failure = cuda.load_error(cuda.DRIVER)
    if failure is None:
        return Finding(OK, f"{cuda.DRIVER} is there")
    return Finding(MISSING, failure, cuda.INSTALL_DRIVER)


def check_nvidia_smi(places: Places) -> Finding:
    if not shutil.which("nvidia-smi"):
        return Finding(MISSING, "nvidia-smi is not on the PATH", cuda.INSTALL_DRIVER)
    cards = cuda.find_cards()
    if not cards:
        _, failure = ask("nvidia-smi")
        return Finding(BROKEN, failure or "nvidia-smi lists no card", cuda.INSTALL_DRIVER)
    unserved = cuda.describe_unserved(cards)
    if unserved:
        return Finding(BROKEN, *unserved)
    return Finding(OK, "; ".join(f"{card.name}, {card.memory}" for card in cards))


def check_home(places: Places) -> Finding:
    home = os.environ.get("CUDA_HOME")
    wrong = cuda.find_wrong_home()
    return Finding(BROKEN if home else MISSING, *wrong) if wrong else Finding(OK, home)


def check_wheel(wheel: cuda.Wheel, places: Places) -> Finding:
    path = cuda.find_library(wheel.soname)
    if path:
        lacking = [name for name in wheel.companions if cuda.find_library(name) is None]
        if lacking:
            remedy = f"pip install --force-reinstall {wheel.pin}"
            return Finding(BROKEN, f"without {', '.join(lacking)}", remedy)
        return Finding(OK, f"{_version(wheel.name)}: {path}")
    if wheel in cuda.find_missing():
        return Finding(MISSING, f"no {wheel.soname}", f"pip install {wheel.pin}")
    return Finding(OK, f"{wheel.soname} of a system-wide CUDA")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown version"


CHECKS = {
    "NVIDIA driver": check_driver,
    "nvidia-smi": check_nvidia_smi,
    "CUDA_HOME": check_home,
    **{wheel.name: partial(check_wheel, wheel) for wheel in cuda.WHEELS},
}
