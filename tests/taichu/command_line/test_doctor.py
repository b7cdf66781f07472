"""taichu doctor: its table, its JSON and its exit codes."""

import json

import pytest

from ascend.doctor import Check
from taichu.command_line import doctor


@pytest.fixture
def checks(monkeypatch):
    """What an examination finds; a test adds the device."""
    found = [
        Check("CANN", "not needed", "no Ascend is here", ""),
        Check("disk", "broken", "1.0 GiB free, less than 2", "remove what is not needed"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda name, master: iter(found))
    return found


def test_the_table_names_what_is_wrong_and_what_mends_it(taichu, checks):
    checks.append(Check("CPU", "ok", "computes", ""))
    result = taichu("doctor")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["broken", "disk", "1.0", "GiB", "free,", "less", "than", "2"],
        ["->", "remove", "what", "is", "not", "needed"],
        ["ok", "CPU", "computes"],
        ["not", "needed", "here:", "CANN"],
        ["device:", "CPU"],
    ]


def test_no_device_that_works_is_code_1(taichu, checks):
    checks.append(Check("CPU", "broken", "it is ill", "mend what is told above"))
    result = taichu("doctor", "--json")
    content = json.loads(result.out)
    assert (result.code, content["device"], content["works"]) == (1, None, False)
    assert content["checks"][-1] == {
        "name": "CPU",
        "state": "broken",
        "found": "it is ill",
        "remedy": "mend what is told above",
    }


def test_this_machine(taichu):
    result = taichu("doctor", "--device", "cpu", "--json")
    content = json.loads(result.out)
    assert (result.code, content["device"], content["works"]) == (0, "CPU", True)
    states = {check["name"]: check["state"] for check in content["checks"]}
    assert states["Python"] == states["MindSpore"] == states["NumPy"] == states["CPU"] == "ok"
    assert states["npu-smi"] == states["nvidia-smi"] == "not needed"


def test_an_unknown_device(taichu):
    result = taichu("doctor", "--device", "TPU")
    assert result.code == 2 and "invalid choice: 'TPU'" in result.error
