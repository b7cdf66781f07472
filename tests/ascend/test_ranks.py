"""A process's place among the ranks; that ranks do meet, test_launch and test_two_nodes see."""

import subprocess
import sys

import pytest

from ascend.device import DeviceError
from ascend.ranks import Ranks, read_ranks

VARIABLES = ("RANK_ID", "RANK_SIZE", "MS_ROLE")


@pytest.fixture
def environment(monkeypatch):
    """environment(NAME=value): what msrun would have set, and nothing else of it."""

    def set_variables(**values):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_alone(environment):
    environment()
    assert read_ranks() == Ranks(0, 1) and read_ranks().first
    environment(RANK_ID="0", RANK_SIZE="1")
    assert read_ranks() == Ranks(0, 1)


def test_one_of_several(environment):
    environment(RANK_ID="3", RANK_SIZE="16", MS_ROLE="MS_WORKER")
    assert read_ranks() == Ranks(3, 16) and not read_ranks().first


@pytest.mark.parametrize(
    "values, message",
    [
        ({"RANK_ID": "0"}, "RANK_ID=0 must be a number from 0 to below RANK_SIZE=None"),
        ({"RANK_SIZE": "2"}, "RANK_ID=None must be"),
        ({"RANK_ID": "2", "RANK_SIZE": "2"}, "RANK_ID=2 must be"),
        ({"RANK_ID": "-1", "RANK_SIZE": "2"}, "RANK_ID=-1 must be"),
        ({"RANK_ID": "a", "RANK_SIZE": "2"}, "RANK_ID=a must be"),
        ({"RANK_ID": "0", "RANK_SIZE": "2"}, "RANK_SIZE=2, but msrun has not started this process"),
    ],
)
def test_an_environment_that_does_not_fit(environment, values, message):
    environment(**values)
    with pytest.raises(DeviceError) as caught:
        read_ranks()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_joining_alone_touches_nothing(environment):
    environment()
    program = "import sys, ascend.ranks as r; print(r.join(), 'mindspore' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "Ranks(rank=0, size=1) False\n", result.stderr
