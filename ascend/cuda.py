"""The CUDA 11 libraries of MindSpore's GPU plug-in, from the wheels of the extra `gpu`.

MindSpore looks for its plug-ins once, while it is imported, and for CUDA in the places of a
system-wide installation. `prepare`, which the import of `ascend` calls, puts the wheels there.
"""

import ctypes
import glob
import os
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

from ascend.child import run_child

NODES = "/dev/nvidia[0-9]*"
SHIM = Path(__file__).parent / "cuda_home"  # all of a CUDA installation that MindSpore asks
RPATH = Path("/usr/local/cuda/lib64")  # where the plug-in looks by itself
DRIVER = "libcuda.so.1"
INSTALL_DRIVER = "install the NVIDIA driver (a container: --gpus all)"
INSTALL_EXTRA = "pip install 'taichu[gpu]'"
FALLBACK = "the CPU is used"
SERVED = (6.0, 9.0)  # compute capabilities with kernels in the plug-in: from, and below


class Wheel(NamedTuple):
    """A wheel of the extra `gpu`.

    Attributes:
        name, version: as pip knows it; the version is the one pinned in pyproject.toml.
        soname: the library that the plug-in needs.
        companions: libraries that this one opens, by name, some only at first use.
    """

    name: str
    version: str
    soname: str
    companions: tuple[str, ...] = ()

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"


# in the order in which they need each other
WHEELS = (
    Wheel("nvidia-cuda-runtime-cu11", "11.8.89", "libcudart.so.11.0"),
    Wheel("nvidia-cublas-cu11", "11.11.3.6", "libcublas.so.11", ("libcublasLt.so.11",)),
    Wheel("nvidia-cuda-nvrtc-cu11", "11.8.89", "libnvrtc.so.11.2", ("libnvrtc-builtins.so.11.8",)),
    Wheel(
        "nvidia-cudnn-cu11",
        "8.9.6.50",
        "libcudnn.so.8",
        (
            "libcudnn_ops_infer.so.8",
            "libcudnn_ops_train.so.8",
            "libcudnn_cnn_infer.so.8",
            "libcudnn_cnn_train.so.8",
            "libcudnn_adv_infer.so.8",
            "libcudnn_adv_train.so.8",
        ),
    ),
    Wheel("nvidia-curand-cu11", "10.3.0.86", "libcurand.so.10"),
    Wheel("nvidia-cusparse-cu11", "11.7.5.86", "libcusparse.so.11"),
    Wheel("nvidia-cusolver-cu11", "11.4.1.48", "libcusolver.so.11"),
    Wheel("nvidia-cufft-cu11", "10.9.0.58", "libcufft.so.10"),
)

_late = False  # MindSpore was imported before the wheels could be put before it


class Card(NamedTuple):
    """A GPU as nvidia-smi tells of it; `capability` is None where it does not say."""

    name: str
    memory: str
    capability: float | None

    @property
    def served(self) -> bool:
        """Whether the plug-in may have kernels for it."""
        return self.capability is None or SERVED[0] <= self.capability < SERVED[1]


class Obstacle(NamedTuple):
    """What keeps MindSpore from the GPU, and the command or the deed that mends it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def prepare(nodes: str = NODES):
    """Load the wheels' libraries and point MindSpore to them; without a GPU nothing is done.

    Changes LD_LIBRARY_PATH, for MindSpore's children and ours, and CUDA_HOME where it is not
    set. MindSpore then computes on the GPU where no device is chosen, so nothing is done for
    cards that it does not serve either. Never raises: what is missing is told by
    `find_obstacle` when the GPU is asked for.

    Args:
        nodes: pattern of the device files that say that a GPU is there.
    """
    global _late
    if not glob.glob(nodes) or os.environ.get("CUDA_HOME") == str(SHIM):  # a parent has done it
        return
    names = [name for wheel in WHEELS for name in (*wheel.companions, wheel.soname)]
    paths = [path for path in map(find_library, names) if path]
    if not paths:
        return
    if "mindspore" in sys.modules:
        _late = not os.environ.get("CUDA_HOME")
        return
    if describe_unserved(find_cards()):
        return
    for path in paths:
        load_error(str(path))
    folders = dict.fromkeys(str(path.parent) for path in paths)
    before = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]
    os.environ["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys([*folders, *before]))
    if not os.environ.get("CUDA_HOME"):
        os.environ["CUDA_HOME"] = str(SHIM)


def find_library(soname: str) -> Path | None:
    """Where a wheel has put a library."""
    for place in filter(None, sys.path):
        found = sorted(Path(place).glob(f"nvidia/*/lib/{soname}"))
        if found:
            return found[0]
    return None


def load_error(library: str) -> str | None:
    """Load a library for the whole process; why it cannot be, or None."""
    try:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


def find_obstacle() -> Obstacle | None:
    """What certainly keeps MindSpore from the GPU; None where nothing is known to."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Obstacle("MindSpore 2.10 has a GPU plug-in for Linux on x86_64 only", FALLBACK)
    unserved = describe_unserved(find_cards())
    if unserved:
        return unserved
    if load_error(DRIVER):
        return Obstacle(f"{DRIVER} is missing", INSTALL_DRIVER)
    if _late:
        return Obstacle("MindSpore was imported too early", "import ascend, or taichu, before it")
    missing = find_missing()
    if missing:
        names = ", ".join(wheel.soname for wheel in missing)
        pins = " ".join(wheel.pin for wheel in missing)
        every = len(missing) == len(WHEELS)
        return Obstacle(f"{names} missing", INSTALL_EXTRA if every else f"pip install {pins}")
    return find_wrong_home()


def find_cards() -> list[Card]:
    """The GPUs that nvidia-smi lists; none where it does not run."""
    query = "--query-gpu=name,memory.total,compute_cap"
    try:
        listed = run_child(["nvidia-smi", query, "--format=csv,noheader"], seconds=10)
    except OSError:
        return []
    rows = [line.split(", ") for line in listed.out.splitlines()] if listed.code == 0 else []
    return [Card(*row[:2], _number(row[2])) for row in rows if len(row) == 3]


def describe_unserved(cards: list[Card]) -> Obstacle | None:
    """That the plug-in has kernels for none of the cards; None where it may, or none is known."""
    if not cards or any(card.served for card in cards):
        return None
    name, _, capability = cards[0]
    has = f"MindSpore 2.10 has kernels for {SERVED[0]} to below {SERVED[1]}"
    return Obstacle(f"{name} has compute capability {capability}, {has}", FALLBACK)


def find_missing() -> list[Wheel]:
    """The wheels whose library neither they nor a system-wide CUDA 11 bring."""
    return [
        wheel
        for wheel in WHEELS
        if load_error(wheel.soname) and not (RPATH / wheel.soname).exists()
    ]


def find_wrong_home() -> Obstacle | None:
    """That MindSpore would take no plug-in for what CUDA_HOME points to, or None."""
    home = os.environ.get("CUDA_HOME")
    if not home:
        return Obstacle("CUDA_HOME is not set, and MindSpore needs it", INSTALL_EXTRA)
    remedy = f"unset CUDA_HOME and {INSTALL_EXTRA}"
    try:
        told = run_child([f"{home}/bin/nvcc", "--version"], seconds=10)
    except OSError as error:
        return Obstacle(f"CUDA_HOME={home} has no bin/nvcc ({error.strerror})", remedy)
    release = re.search(r"Cuda compilation tools, release (\d+)\.(\d+),", told.out)
    if release and release[1] == "11":
        return None
    what = f"CUDA {release[1]}.{release[2]}" if release else "no CUDA"
    return Obstacle(f"CUDA_HOME={home} is {what}, MindSpore needs 11", remedy)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else None
