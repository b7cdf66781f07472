"""Builds the CPU kernels beside the Python code; pyproject.toml holds everything else.

The kernels are a plain shared library without any Python in it, and optional: where no C++
compiler is present the installation goes on, and the operators run in their plain form.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

KERNELS = Path("ascend/operators/kernels")
FLAGS = ["-O3", "-ffast-math", "-std=c++17", "-shared", "-fPIC", "-pthread"]
# the best instructions of this machine, where the compiler knows how to ask for them
TUNINGS = [["-march=native", "-mprefer-vector-width=512"], ["-march=native"], []]


class BuildKernels(build_ext):
    """Compiles the one extension by a direct call: no Python headers, no Python in its name."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, extension: Extension):
        names = (os.environ.get("CXX"), "g++", "clang++", "c++")
        compiler = next((path for name in names if name and (path := shutil.which(name))), None)
        if compiler is None:
            raise CompileError("no C++ compiler: the operators will run in their slower plain form")
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        for tuning in TUNINGS:
            command = [compiler, *FLAGS, *tuning, "-o", str(target), *extension.sources]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                return
        raise CompileError(f"{' '.join(command)}\n{result.stderr}")


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            "ascend.operators._cpu_kernels",
            [str(source) for source in sorted(KERNELS.glob("*.cpp"))],
            depends=[str(header) for header in sorted(KERNELS.glob("*.h"))],
            optional=True,
        )
    ],
)
