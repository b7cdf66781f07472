"""Children: how they end, and that nothing they do keeps us."""

from contextlib import suppress

import psutil
import pytest

from ascend.child import MOST, run_child


def test_code_and_streams():
    assert run_child(["sh", "-c", "echo a; echo b >&2; exit 3"], 10) == (3, "a\n", "b\n")
    assert run_child(["sh", "-c", "kill -9 $$"], 10).code == -9


def test_it_runs_in_the_folder_and_reads_nothing(tmp_path):
    assert run_child(["sh", "-c", "cat; pwd"], 10, tmp_path).out == f"{tmp_path}\n"


def test_its_own_children_are_ended_with_it(tmp_path):
    pid = tmp_path / "pid"
    words = ["sh", "-c", f"echo early; sleep 1000 & echo $! > {pid}; wait"]
    assert run_child(words, 0.5) == (None, "early\n", "")
    with suppress(psutil.NoSuchProcess):
        sleeper = psutil.Process(int(pid.read_text()))
        assert sleeper.status() == psutil.STATUS_ZOMBIE or sleeper.wait(10) is None


def test_what_it_prints_cannot_steer_a_terminal_or_fill_the_memory():
    assert run_child(["printf", r"\033[2Jred\007\377\n"], 10).out == "[2Jred\ufffd\n"
    many = run_child(["sh", "-c", f"head -c {2 * MOST} /dev/zero | tr '\\0' x"], 10)
    assert many.out == "x" * MOST


def test_a_program_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        run_child(["no-such-program"], 10)
