"""A machine that is made up: programs on the PATH that say what a test wants."""

import pytest


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(name, script) puts a shell script on a PATH that holds nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put
