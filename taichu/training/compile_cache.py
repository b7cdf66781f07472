"""Compiled graphs kept on disk: a later process with the same step reads what this one compiled."""

import hashlib
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

import ascend
import taichu
from ascend.operators.form import LIBRARY

KEPT = 16  # graphs in a folder, the newest


class KeptGraph:
    """A method of a Cell compiled at its first call, or read from a folder of compiled graphs.

    MindSpore's own cache does not look at what a graph was compiled from beyond the script that was
    called; here a graph is found only under the fingerprint of all of it. On the CPU alone: it
    has been tried nowhere else.

    Args:
        method: of a Cell that holds, by unique names, all parameters that the method uses.
        folder: where graphs are kept; None: nowhere.
    """

    number = 0  # MindSpore counts the graphs that a process reads or writes, and names them so

    def __init__(self, method: Callable, folder: Path | str | None = None):
        self.cell, self.compiled, self.name = method.__self__, ms.jit(method), method.__name__
        self.folder = folder

    def __call__(self, *arrays):
        if self.folder is None:
            return self.compiled(*arrays)
        folder, self.folder = Path(self.folder), None
        if ms.get_context("device_target") != "CPU" or not os.path.isfile(sys.argv[0]):
            return self.compiled(*arrays)  # MindSpore's cache needs a script that it can read
        kept = folder / fingerprint(self.cell, self.name, arrays)
        with tempfile.TemporaryDirectory() as work:
            graphs = Path(work) / "rank_0" / "graph_cache"
            graph = graphs / f"compile_cache_{KeptGraph.number}.mindir"
            KeptGraph.number += 1
            known = kept.is_dir()
            if known:
                shutil.copytree(kept, graphs)
                (graphs / "graph.mindir").rename(graph)
            ms.set_context(enable_compile_cache=True, compile_cache_path=work)
            try:
                outputs = self.compiled(*arrays)
            finally:
                ms.set_context(enable_compile_cache=False)
            if not known and graph.is_file():
                graph.rename(graphs / "graph.mindir")
                keep(graphs, kept)
        return outputs


def keep(graphs: Path, kept: Path):
    """Move a folder to where a process that reads it sees all of it or nothing; drop the oldest."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    whole = Path(tempfile.mkdtemp(dir=kept.parent))
    shutil.copytree(graphs, whole, dirs_exist_ok=True)
    try:
        whole.rename(kept)
    except OSError:  # another process was faster
        shutil.rmtree(whole)
    for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def fingerprint(cell: nn.Cell, method: str, arrays) -> str:
    """A digest of all that a graph is compiled from: versions, source files, the Cells' settings,
    constants and parameters' names, and the arguments' shapes. Parameters' values are not in it."""
    digest = hashlib.sha256()
    for part in (ms.__version__, sys.version, LIBRARY, sys.argv[0], method):
        digest.update(f"{part}\n".encode())
    for path in sources():
        digest.update(path.encode() + Path(path).read_bytes())
    blank = set(vars(nn.Cell()))
    for name, part in cell.cells_and_names():
        digest.update(f"{name} {type(part).__qualname__}\n".encode())
        for key, value in vars(part).items():
            if key not in blank:
                digest.update(f"{key} ".encode())
                for piece in describe(value):
                    digest.update(piece)
    for parameter in cell.parameters_dict().values():
        digest.update(b"".join(describe(parameter)))
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}\n".encode())
    return digest.hexdigest()[:32]


def sources() -> list[str]:
    """The files of this framework, and of all that is loaded and not installed: a user's own."""
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib"))
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = {path for path in loaded if path and path.endswith(".py")}
    files = {path for path in files if not path.startswith(installed) and os.path.isfile(path)}
    for package in (ascend, taichu):
        files |= {str(path) for path in Path(package.__file__).parent.rglob("*.py")}
    return sorted(files)


def describe(value) -> Iterator[bytes]:
    """What of a Cell's attribute a graph may hold."""
    if isinstance(value, ms.Parameter):
        kind = (value.name, value.shape, value.dtype, value.requires_grad)
        yield f"{kind}\n".encode()
    elif isinstance(value, (ms.Tensor, np.ndarray)):
        array = value.asnumpy() if isinstance(value, ms.Tensor) else value
        yield f"{array.shape} {array.dtype}".encode() + array.tobytes()
    elif isinstance(value, ms.ops.Primitive):
        yield f"{value.name} {sorted(value.attrs.items(), key=str)}\n".encode()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from describe(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{key} ".encode()
            yield from describe(item)
    else:  # without the address that an object's own text may end in
        yield re.sub(r" at 0x[0-9a-f]+", "", f"{value!r}\n").encode()
