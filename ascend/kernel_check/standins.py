"""Shared libraries that stand in for CANN's, so that MindSpore's Ascend plug-in loads.

What the plug-in wants is read from the plug-in itself: the libraries that ``ldd`` does not find,
the symbols that nothing defines, and the names of the aclnn kernels in its text. Every function
does nothing and reports success.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ascend.errors import HardwareError

CHIP_VARIABLE = "TAICHU_STANDIN_CHIP"  # name of the chip that the stand-ins say they are
CHIP = "Ascend910B2"
TOOLS = ("g++", "ldd", "nm", "strings")

# looked up by name when the plug-in runs, so not among what it lists as needed
LOADED_LATER = ("libacl_op_compiler.so", "libacl_tdt_channel.so", "libopapi.so")
STATUS_TABLE = "_ZN2ge13StatusFactory8InstanceEv"
SPECIAL = {"aclrtGetSocName", STATUS_TABLE}
# functions that make something: the plug-in asks whether what they return is null
MAKERS = re.compile(r"acl\w*Create\w*$")

HEAD = f"""
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
static char thing[4096];
extern "C" {{
const char* aclrtGetSocName() {{
  const char* chip = getenv("{CHIP_VARIABLE}");
  return chip ? chip : "{CHIP}";
}}
void* status_table() __asm__("{STATUS_TABLE}");
void* status_table() {{
  static auto* table = new std::map<uint32_t, std::string>();
  return table;
}}
"""


class StandInError(HardwareError):
    """The stand-ins cannot be built here; one line says why."""


def missing_tool() -> str | None:
    """A program that building needs and that is not there, or None."""
    return next((tool for tool in TOOLS if shutil.which(tool) is None), None)


def build_standins(cache: Path | str | None = None) -> Path:
    """Build the stand-ins, or find them built before; returns their folder.

    Args:
        cache: where they are kept, by MindSpore's build; by default the user's cache folder.

    Raises:
        StandInError: a tool is missing, or MindSpore is not the Linux wheel with the plug-in.
    """
    plugin = plugin_folder()
    libraries = [plugin / "libmindspore_ascend.so.2", plugin / "libmindspore_ops_ascend.so"]
    for library in libraries:
        if not library.is_file():
            raise StandInError(f"{library}: not there; MindSpore's Linux wheel holds it")
    libraries += [p for p in (plugin / "ascend").rglob("*.so*") if _is_of_this_machine(p)]
    return keep("cann", libraries, _build, Path(__file__), cache)


def plugin_folder() -> Path:
    """Where the installed MindSpore has its plug-ins."""
    spec = find_spec("mindspore")
    return Path(next(iter(spec.submodule_search_locations))) / "lib" / "plugin"


def keep(name: str, libraries: list[Path], build, source: Path, cache=None) -> Path:
    """A folder of the cache that ``build(libraries, folder)`` has filled, now or before.

    Args:
        name: of what the stand-ins stand for.
        libraries: what they are read from; others of MindSpore's have other stand-ins.
        source: the file that ``build`` is written in, for the same reason.
        cache: where folders are kept; by default the user's cache folder.

    Raises:
        StandInError: a tool that building needs is missing.
    """
    if tool := missing_tool():
        raise StandInError(f"{tool} is not there; install g++ and binutils")
    sizes = [(path.name, path.stat().st_size) for path in libraries]
    key = hashlib.sha256(f"{sizes} {source.read_text()}".encode()).hexdigest()[:16]
    cache = Path(cache or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taichu"
    folder = cache / f"{name}-standins-{key}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(dir=cache))
        build(libraries, whole)
        try:
            whole.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(whole)
    return folder


def environment(folder: Path, chip: str = CHIP, rank: int = 0, ranks: int = 1) -> dict[str, str]:
    """The environment of a process in which MindSpore takes the stand-ins for an Ascend.

    Args:
        folder: what `build_standins` returned.
        chip: as CANN names it.
        rank, ranks: the place of the process among those that would run together.
    """
    cann, paths = folder / "cann", os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "ASCEND_HOME_PATH": str(cann),
        "LD_LIBRARY_PATH": str(cann / "lib64"),
        "PYTHONPATH": os.pathsep.join([str(folder / "python")] + [paths] * bool(paths)),
        "MS_SIMULATION_LEVEL": "1",  # compile and select kernels, launch nothing
        "GLOG_v": "1",  # the selection is told at this level
        "RANK_SIZE": str(ranks),
        "RANK_ID": str(rank),
        CHIP_VARIABLE: chip,
    }


def _build(libraries: list[Path], folder: Path):
    lib = folder / "cann" / "lib64"  # MindSpore looks for a folder of the first name
    lib.mkdir(parents=True)
    # what MindSpore asks for CANN's collective communication's version
    hccl = folder / "python" / "hccl"
    hccl.mkdir(parents=True)
    (hccl / "__init__.py").touch()
    (hccl / "sys_version.py").write_text('__sys_version__ = "9.1.0"\n')

    missing, present = set(LOADED_LATER), set()
    for library in libraries:
        for line in run_tool("ldd", library).splitlines():
            if "=> not found" in line:
                missing.add(line.split()[0])
            elif found := re.search(r"=> (/\S+)", line):
                present.add(Path(found[1]))
    package = libraries[0].parents[2]  # mindspore: its libraries find each other once it is loaded
    present |= {*(package / "lib").glob("*.so*"), *package.glob("*.so*"), *libraries}
    missing -= {path.name for path in package.rglob("*.so*")}

    defined = symbols("--defined-only", present)
    wanted = symbols("--undefined-only", libraries) - defined - SPECIAL
    wanted = sorted(name for name in wanted if not re.match(r"_?Py", name))
    names = set()
    for library in libraries:
        names |= set(re.findall(r"^(aclnn[A-Z]\w+)$", run_tool("strings", library), re.MULTILINE))
    kernels = {name.removesuffix("GetWorkspaceSize") for name in names}
    kernels |= {f"{name}GetWorkspaceSize" for name in kernels} | {"aclnnInit", "aclnnFinalize"}

    with tempfile.TemporaryDirectory() as work:
        # MindSpore is built with the older names of C++'s strings
        flags = ("-D_GLIBCXX_USE_CXX11_ABI=0", "-w", "-shared", "-fPIC")
        for name in sorted(missing):
            text = ""
            if name == "libascendcl.so":
                text = HEAD + "\n".join(map(_function, range(len(wanted)), wanted)) + "\n}\n"
            elif name == "libopapi.so":
                text = "".join(f'extern "C" int {kernel}() {{ return 0; }}\n' for kernel in kernels)
            source = Path(work) / f"{name}.cpp"
            source.write_text(text)
            run_tool("g++", *flags, f"-Wl,-soname,{name}", "-o", lib / name, source)


def _function(number: int, symbol: str) -> str:
    value = "(long)thing" if MAKERS.match(symbol) else "0"
    declared = f'long f{number}(...) __asm__("{symbol}");'
    return f"{declared} long f{number}(...) {{ return {value}; }}"


def symbols(kind: str, libraries) -> set[str]:
    """Names that libraries define ("--defined-only") or want ("--undefined-only")."""
    names = set()
    for library in libraries:
        for line in run_tool("nm", "-D", kind, library).splitlines():
            *_, letter, name = line.split()
            if letter not in "wv":  # weak ones may stay undefined
                names.add(name.split("@")[0])
    return names


def _is_of_this_machine(library: Path) -> bool:
    """By the machine's number in the ELF header, against Python's own."""
    with library.open("rb") as file, Path("/proc/self/exe").open("rb") as python:
        return "custom_" not in library.name and file.read(20)[18:20] == python.read(20)[18:20]


def run_tool(*command) -> str:
    """What a program prints.

    Raises:
        StandInError: g++ fails.
    """
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, errors="replace"
    )
    if result.returncode and command[0] == "g++":
        raise StandInError(f"g++ failed: {result.stderr.strip().splitlines()[-1]}")
    return result.stdout
