"""Runs the command as a user does: what it printed, and its exit code."""

from collections import namedtuple

import pytest

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
