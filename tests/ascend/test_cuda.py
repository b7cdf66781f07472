"""The way to CUDA's libraries, walked with stand-ins: real shared libraries that do nothing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ascend import cuda

ROOT = Path(__file__).parents[2]
PLUGIN = ("libmindspore_gpu.so.11.6", "gpu/libcuda_ops.so.11")
COMPILER = shutil.which("g++") and shutil.which("nm")
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no g++ and nm to build stand-ins with")

# what a library does when it is loaded: it writes its name down
LOADED = """
#include <cstdio>
#include <cstdlib>
__attribute__((constructor)) static void loaded() {
    const char* path = std::getenv("LOADED_LIBRARIES");
    if (FILE* file = path ? std::fopen(path, "a") : nullptr) {
        std::fprintf(file, "%s\\n", SONAME);
        std::fclose(file);
    }
}
"""


def build(folder: Path, soname: str, functions: set[str] = frozenset()):
    """A library whose functions all return CUDA's "no device is detected"."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = folder.parent / "sources"
    sources.mkdir(exist_ok=True)
    source, versions = sources / f"{soname}.cpp", sources / f"{soname}.map"
    versioned = bool(functions) and soname != cuda.DRIVER
    text = [LOADED, 'extern "C" {']
    for function in sorted(functions):
        told = re.search("Error(String|Name)", function)
        kind, value = ("const char*", '"no device"') if told else ("long", "100")
        text.append(f"{kind} {function}() {{ return {value}; }}")
    source.write_text("\n".join([*text, "}"]))
    versions.write_text(f"{soname if versioned else ''} {{ global: *; }};")
    words = ["g++", "-shared", "-fPIC", "-w", f'-DSONAME="{soname}"', str(source)]
    words += [f"-Wl,-soname,{soname}", f"-Wl,--version-script={versions}"]
    subprocess.run([*words, "-o", str(folder / soname)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site-packages with a stand-in of every library of every wheel, and a driver's."""
    site = tmp_path_factory.mktemp("site")
    package = Path(importlib.util.find_spec("mindspore").submodule_search_locations[0])
    words = ["nm", "-D", "--undefined-only", "--with-symbol-versions"]
    words += [str(package / "lib/plugin" / name) for name in PLUGIN]
    table = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    symbols = {tuple(found) for found in re.findall(r"^ +U (\w+)@*(\S*)$", table, re.MULTILINE)}
    for wheel in cuda.WHEELS:
        folder = site / "nvidia" / wheel.name.split("-")[-2] / "lib"
        stem = re.match(r"lib(\w+)", wheel.soname)[1]
        functions = {n for n, v in symbols if v == wheel.soname or not v and n.startswith(stem)}
        assert functions, wheel
        for soname in wheel.companions:
            build(folder, soname)
        build(folder, wheel.soname, functions)
    driver = {name for name, version in symbols if re.match("cu[A-Z]", name) and not version}
    build(site / "driver", cuda.DRIVER, driver)
    return site


@pytest.fixture
def python(site, tmp_path, program):
    """Runs a program where the stand-ins are installed; the file `node` is the GPU."""
    (tmp_path / "node").touch()
    program("nvidia-smi", "echo Stand-in, 16384 MiB, 8.0")

    def run(program: str, **environment) -> list[str]:
        kept = {n: v for n, v in os.environ.items() if n not in ("CUDA_HOME", "LD_LIBRARY_PATH")}
        kept["PATH"] += ":/usr/bin:/bin"  # MindSpore calls ldd
        kept |= {"PYTHONPATH": f"{site}:{ROOT}", "LOADED_LIBRARIES": str(tmp_path / "loaded")}
        done = subprocess.run(
            [sys.executable, "-c", f"from ascend import cuda\ncuda.prepare('node')\n{program}"],
            env=kept | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@needs_compiler
def test_libraries_are_loaded_before_those_that_need_them(python, tmp_path):
    python("")
    loaded = (tmp_path / "loaded").read_text().split()
    assert len(loaded) == len(set(loaded)) == 16
    needs = [  # as `readelf -d` lists them in the wheels
        ("libcublasLt.so.11", "libcublas.so.11"),
        ("libcublas.so.11", "libcudnn_ops_infer.so.8"),
        ("libcudnn_ops_infer.so.8", "libcudnn_cnn_infer.so.8"),
        ("libcudnn_cnn_infer.so.8", "libcudnn_cnn_train.so.8"),
        ("libcublas.so.11", "libcusolver.so.11"),
        ("libcusparse.so.11", "libcusolver.so.11"),
    ]
    for first, second in needs:
        assert loaded.index(first) < loaded.index(second)


@needs_compiler
def test_mindspore_loads_its_plugin_with_them(python, site):
    """Nothing but a card is missing then, as far as the plug-in itself can tell."""
    script = """
import mindspore
mindspore.set_device("GPU")
try:
    mindspore.ops.ones((2, 2)).asnumpy()
except RuntimeError as error:
    print(error)
"""
    assert "The cudaGetLastError[100], no device" in python(script, LD_LIBRARY_PATH=site / "driver")


@needs_compiler
def test_children_find_them_too(python, site):
    script = """
from ascend import device
device.find_sign = {"GPU": "node"}.get
print(device.check_device("GPU"))
"""
    (line,) = python(script, LD_LIBRARY_PATH=site / "driver")
    reason = "GPU (node) does not work: The cudaGetLastError[100], no device"
    assert line == f"(False, {reason!r})"


@pytest.fixture
def machine(tmp_path, monkeypatch, program):
    """A site-packages with one (broken) library, and nothing set; `node` is its GPU."""
    folder = tmp_path / "nvidia" / "cublas" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcublas.so.11").write_text("not a library")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mindspore", raising=False)
    monkeypatch.setattr(cuda, "_late", False)
    for variable in ("CUDA_HOME", "LD_LIBRARY_PATH"):  # set first: what was there comes back
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    return folder


def set_by_prepare(nodes: str = "node") -> dict[str, str]:
    """Which variables `prepare` changes, and to what."""
    before = dict(os.environ)
    cuda.prepare(nodes)
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def test_a_library_that_cannot_be_loaded_stops_no_import(machine):
    assert set_by_prepare() == {"CUDA_HOME": str(cuda.SHIM), "LD_LIBRARY_PATH": str(machine)}


def test_what_is_set_is_kept_and_children_change_nothing(machine, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/a:/b")
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    assert set_by_prepare() == {"LD_LIBRARY_PATH": f"{machine}:/a:/b"}
    monkeypatch.setenv("CUDA_HOME", str(cuda.SHIM))
    assert set_by_prepare() == {}


def test_nothing_is_done_without_a_gpu_wheels_or_kernels_for_the_card(
    machine, monkeypatch, program
):
    monkeypatch.setattr(cuda, "load_error", pytest.fail)
    assert set_by_prepare("nothing[0-9]*") == {}
    program("nvidia-smi", "echo NVIDIA H100 80GB HBM3, 81559 MiB, 9.0")
    assert set_by_prepare() == {}
    monkeypatch.setattr(sys, "path", [])
    assert set_by_prepare() == {}


def test_the_shim_tells_the_release():
    told = subprocess.run([cuda.SHIM / "bin/nvcc", "--version"], capture_output=True, text=True)
    assert told.stdout == "Cuda compilation tools, release 11.8, V11.8.89\n"


@pytest.fixture
def obstacle(machine, monkeypatch):
    """obstacle(missing) is what is found where these libraries cannot be loaded."""
    monkeypatch.setattr(cuda.sys, "platform", "linux")
    monkeypatch.setattr(cuda.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cuda, "RPATH", machine / "none")
    monkeypatch.setenv("CUDA_HOME", str(cuda.SHIM))

    def find(*missing: str) -> str | None:
        monkeypatch.setattr(cuda, "load_error", lambda name: "none" if name in missing else None)
        found = cuda.find_obstacle()
        return found and str(found)

    return find


SONAMES = [wheel.soname for wheel in cuda.WHEELS]


def test_a_missing_wheel_is_told_with_the_command_that_brings_it(obstacle):
    assert obstacle("libcudnn.so.8") == (
        "libcudnn.so.8 missing: pip install nvidia-cudnn-cu11==8.9.6.50"
    )
    assert obstacle("libcufft.so.10", "libcudnn.so.8") == (
        "libcudnn.so.8, libcufft.so.10 missing: "
        "pip install nvidia-cudnn-cu11==8.9.6.50 nvidia-cufft-cu11==10.9.0.58"
    )
    assert obstacle(*SONAMES).endswith("missing: pip install 'taichu[gpu]'")


def test_a_library_of_a_system_wide_cuda_is_as_good(obstacle, machine, monkeypatch):
    monkeypatch.setattr(cuda, "RPATH", machine)
    assert obstacle("libcublas.so.11") is None


def test_a_missing_driver_comes_first(obstacle):
    assert obstacle(cuda.DRIVER, *SONAMES) == (
        "libcuda.so.1 is missing: install the NVIDIA driver (a container: --gpus all)"
    )


@pytest.mark.parametrize(
    "cards, found",
    [
        ("echo NVIDIA A100-SXM4-80GB, 81920 MiB, 8.0", None),
        ("echo GeForce GTX 980, 4096 MiB, 5.2", "GeForce GTX 980 has compute capability 5.2, "),
        ("echo NVIDIA H100, 81559 MiB, 9.0; echo NVIDIA L4, 23034 MiB, 8.9", None),
        ("echo NVIDIA H100, 81559 MiB, 9.0", "NVIDIA H100 has compute capability 9.0, "),
        ("echo Old card, 81559 MiB, [N/A]", None),
        ("echo NVIDIA H100, 81559 MiB, 9.0; exit 9", None),
        ("echo garbage, ; echo; echo a, b, c, d", None),
    ],
)
def test_cards_that_the_plugin_does_not_serve_are_named(obstacle, program, cards, found):
    program("nvidia-smi", cards)
    said = obstacle()
    assert said == (
        found and f"{found}MindSpore 2.10 has kernels for 6.0 to below 9.0: the CPU is used"
    )


def test_mindspore_before_ascend_is_too_early(obstacle, monkeypatch):
    monkeypatch.setitem(sys.modules, "mindspore", None)
    monkeypatch.delenv("CUDA_HOME")
    assert set_by_prepare() == {}
    assert "MindSpore was imported too early" in obstacle()


def test_a_cuda_home_that_mindspore_cannot_use_is_told(obstacle, monkeypatch, tmp_path):
    home = tmp_path / "cuda"
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert obstacle() == (
        f"CUDA_HOME={home} has no bin/nvcc (No such file or directory): "
        "unset CUDA_HOME and pip install 'taichu[gpu]'"
    )
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin/nvcc"
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 12.4, V12.4.131\n")
    nvcc.chmod(0o755)
    assert obstacle() == (
        f"CUDA_HOME={home} is CUDA 12.4, MindSpore needs 11: "
        "unset CUDA_HOME and pip install 'taichu[gpu]'"
    )
    monkeypatch.delenv("CUDA_HOME")
    assert obstacle() == ("CUDA_HOME is not set, and MindSpore needs it: pip install 'taichu[gpu]'")


def test_another_processor_has_no_plugin(obstacle, monkeypatch):
    monkeypatch.setattr(cuda.platform, "machine", lambda: "aarch64")
    assert (
        obstacle() == "MindSpore 2.10 has a GPU plug-in for Linux on x86_64 only: the CPU is used"
    )


def test_the_extra_pins_the_same_wheels():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pinned = re.findall(
        r'"(nvidia-\S+)==(\S+); platform_machine == .x86_64. and sys_platform == .linux."', text
    )
    assert sorted(pinned) == sorted(wheel[:2] for wheel in cuda.WHEELS)
