"""The same check for GPUs: MindSpore's CUDA plug-in, loaded over stand-ins of CUDA's libraries.

The plug-in looks for a kernel by an operator's name and types. Where there is none it takes the
operator apart (SumExt into ReduceSum), then asks for a kernel of the CPU's, and else gives up. What
`taichu` computes on a GPU is the plain form of its operators; no kernel is launched here.
"""

import os
import re
from collections import Counter
from pathlib import Path

from ascend.cuda import SHIM
from ascend.kernel_check.selection import ON_CPU, RAISED, Selection, follow
from ascend.kernel_check.standins import StandInError, keep, plugin_folder, run_tool, symbols

PLUGIN = "libmindspore_gpu.so.11.6"
KERNELS = "gpu/libcuda_ops.so.11"  # the plug-in's own CUDA code
DRIVER = "libcuda.so.1"

ASKED = re.compile(r"SetKernelInfoWithMsg\] \S*?(\w+)-op\d+ kernel attr info")
TAKEN_APART = re.compile(r"SetOperatorInfo\] Unsupported op \[(\w+)\] on GPU")
REFUSED = re.compile(
    r"HandleKernelSelectFailure\] Unsupported op \[(\w+)\]|Select GPU operator\[(\w+)\] fail"
)

HEAD = """
#include <cstddef>
#include <cstring>
static char thing[4096];
extern "C" {
"""
# what the plug-in asks of a device; the numbers are places in CUDA 11's cudaDeviceProp
ANSWERS = {
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int* n) { *n = 1; return 0; }",
    "cudaGetDeviceProperties": """int cudaGetDeviceProperties(char* device, int) {
  memset(device, 0, 700);
  strcpy(device, "stand-in");
  *reinterpret_cast<int*>(device + 360) = 8;  // compute capability 8.0
  return 0;
}""",
    "cudaMemGetInfo": """int cudaMemGetInfo(size_t* left, size_t* all) {
  *left = *all = size_t(64) << 30;
  return 0;
}""",
    "cudaGetErrorString": 'const char* cudaGetErrorString(int) { return "stand-in"; }',
    "cudaGetErrorName": 'const char* cudaGetErrorName(int) { return "stand-in"; }',
}
MAKERS = re.compile(r"\w*Create\w*$|cudaMalloc$|cudaHostAlloc$")  # their first argument is filled


def find_plugin() -> Path | None:
    """MindSpore's CUDA plug-in; None where its wheel holds none."""
    path = plugin_folder() / PLUGIN
    return path if path.is_file() else None


def select_cuda_kernels(command: list[str], cache=None) -> Selection:
    """Run a command under the stand-ins, and read what MindSpore selects for all it compiles.

    Args:
        command: of a process that sets the device "GPU", compiles its graphs, and exits.
        cache: of `ascend.kernel_check.standins.keep`.

    Raises:
        StandInError: the stand-ins cannot be built here.
    """
    return follow(command, environment(build_standins(cache)), read_log)


def build_standins(cache=None) -> Path:
    """Build the stand-ins, or find them built before; returns their folder.

    Raises:
        StandInError: a tool is missing, or MindSpore's wheel holds no CUDA plug-in.
    """
    plugin = find_plugin()
    if plugin is None:
        raise StandInError(f"{PLUGIN}: not in MindSpore's wheel of this system, only in Linux's")
    return keep("cuda", [plugin, plugin.parent / KERNELS], _build, Path(__file__), cache)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process in which MindSpore takes the stand-ins for a GPU's libraries."""
    return {
        **os.environ,
        "CUDA_HOME": str(SHIM),
        "LD_LIBRARY_PATH": str(folder),
        # before what lies in /usr/local/cuda, where the plug-in looks first
        "LD_PRELOAD": ":".join(path.name for path in sorted(folder.iterdir())),
        "MS_SIMULATION_LEVEL": "1",  # compile and select kernels, launch nothing
        "GLOG_v": "1",  # the selection is told at this level
    }


def read_log(lines) -> tuple[Selection, str | None]:
    """What a log at level INFO says of kernels, and the last error that it shows."""
    asked, apart, on_cpu, refused, raised = Counter(), Counter(), Counter(), Counter(), None
    for line in lines:
        if found := ASKED.search(line):
            asked[found[1]] += 1
        elif found := TAKEN_APART.search(line):
            apart[found[1]] += 1
        elif found := ON_CPU.search(line):
            on_cpu[found[1]] += 1
        elif found := REFUSED.search(line):
            refused[found[1] or found[2]] = 1
        elif found := RAISED.match(line):
            raised = f"{found[1]}: {found[2]}".rstrip(": ")
    cuda = asked - apart - on_cpu - refused
    kinds = {"cuda": cuda, "cpu": on_cpu, "none": refused}
    kernels = {(o, kind): n for kind, of_kind in kinds.items() for o, n in of_kind.items()}
    return Selection(Counter(kernels)), raised


def _build(libraries: list[Path], folder: Path):
    # CUDA's libraries and what the plug-in wants of each; what has no version may lie in any
    needed = re.findall(r"^\s*(lib(?:cu|nv)\S+)", run_tool("ldd", libraries[0]), re.MULTILINE)
    wanted = {name: [] for name in needed if name != Path(KERNELS).name}
    own = symbols("--defined-only", libraries)
    for name, version in sorted(_versions(libraries).items()):
        if name.startswith(("cu", "nv")) and name not in own:
            wanted[version if version in wanted else DRIVER].append(name)
    for library, names in wanted.items():
        source, versions = folder / "source.cpp", folder / "versions"
        source.write_text(HEAD + "\n".join(map(_function, names)) + "\n}\n")
        versions.write_text(f"{library} {{ global: *; }};\n")
        flags = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{library}"]
        flags += [f"-Wl,--version-script={versions}"] * (library != DRIVER)
        run_tool("g++", *flags, "-o", folder / library, source)
    source.unlink()
    versions.unlink()


def _versions(libraries: list[Path]) -> dict[str, str]:
    """The symbols that libraries want, each with the version that they want it of, or ""."""
    found = {}
    for library in libraries:
        for line in run_tool("nm", "-D", "--undefined-only", library).splitlines():
            name, _, version = line.split()[-1].partition("@")
            found[name] = found.get(name) or version.lstrip("@")
    return found


def _function(name: str) -> str:
    if name in ANSWERS:
        return ANSWERS[name]
    if MAKERS.match(name):
        return f"int {name}(void** made, ...) {{ *made = thing; return 0; }}"
    return f"long {name}(...) {{ return 0; }}"
