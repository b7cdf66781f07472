"""Runs the command as a user does: what it printed, and its exit code."""

import sys
from collections import namedtuple

import pytest

from ascend.kernel_check import select_kernels
from taichu.command_line import main

Result = namedtuple("Result", "code out error")


@pytest.fixture
def taichu(capsys, monkeypatch, tmp_path):
    """Call it with the words of a command line; the working folder is an empty one."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def select():
    """select(graph, key=value ...): the kernels of one of pretrain's graphs on an Ascend."""

    def select(graph: str, *overrides: str, **settings):
        program = [sys.executable, "-m", "taichu.command_line.dry_compile"]
        return select_kernels([*program, "Ascend", graph, "pretrain", *overrides], **settings)

    return select
