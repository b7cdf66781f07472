"""Checks of what pip and the compiler have put here."""

import ctypes
import importlib.util
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from ascend.doctor.check import BROKEN, MISSING, NOT_NEEDED, OK, Finding, Places, ask

PYTHONS = (3, 10), (3, 13)  # from, and below
MINDSPORE = "2.10"
COMPILERS = ("g++", "clang++", "c++")
REINSTALL = "pip install --force-reinstall --no-deps taichu"


def check_python(places: Places) -> Finding:
    first, end = (".".join(map(str, version)) for version in PYTHONS)
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        return Finding(OK, found)
    return Finding(BROKEN, found, f"install a Python from {first} to below {end}")


def check_mindspore(places: Places) -> Finding:
    return _check_package("mindspore", f"{MINDSPORE}.", f"'mindspore=={MINDSPORE}.*'")


def check_numpy(places: Places) -> Finding:
    return _check_package("numpy", "1.", "'numpy>=1.24,<2'")


def _check_package(name: str, prefix: str, requirement: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(MISSING, "not installed", f"pip install {requirement}")
    if version.startswith(prefix):
        return Finding(OK, version)
    return Finding(BROKEN, f"{version}, not {prefix}*", f"pip install {requirement}")


def check_kernels(places: Places) -> Finding:
    library = _find_kernels(places)
    if library is None:
        remedy = f"install a C++ compiler, then {REINSTALL}"
        return Finding(MISSING, "the operators run in their plain form, slower", remedy)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return Finding(BROKEN, str(error), REINSTALL)
    return Finding(OK, str(library))


def _find_kernels(places: Places) -> Path | None:
    return next(iter(sorted(places.operators.glob("_cpu_kernels*.so"))), None)


def check_compiler(places: Places) -> Finding:
    names = filter(None, (os.environ.get("CXX"), *COMPILERS))
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None and _find_kernels(places):
        return Finding(NOT_NEEDED, "none, and the CPU kernels are compiled")
    if compiler is None:
        return Finding(MISSING, "no g++, clang++ or c++", "apt-get install g++")
    said, failure = ask(compiler, "--version")
    if failure:
        return Finding(BROKEN, failure, "apt-get install --reinstall g++")
    return Finding(OK, (said.splitlines() or [compiler])[0])


def check_msrun(places: Places) -> Finding:
    """`taichu launch` runs it as a module, so it need not be on the PATH."""
    spec = importlib.util.find_spec("mindspore")  # not imported, only looked for
    folder = Path(next(iter(spec.submodule_search_locations))) if spec else Path("mindspore")
    module = folder / "parallel" / "cluster" / "run.py"
    if module.is_file():
        return Finding(OK, str(module))
    return Finding(MISSING, f"{module} is not there", f"pip install 'mindspore=={MINDSPORE}.*'")


CHECKS = {
    "Python": check_python,
    "MindSpore": check_mindspore,
    "NumPy": check_numpy,
    "CPU kernels": check_kernels,
    "C++ compiler": check_compiler,
    "msrun": check_msrun,
}
