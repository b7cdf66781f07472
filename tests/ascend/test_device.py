"""The device choice: its order, its reasons, and a real probe of what this machine has."""

import pytest

from ascend import device
from ascend.device import Device, DeviceError, choose_device


@pytest.fixture
def machine(monkeypatch):
    """A pretended machine: machine(signs, ...) says what is there and what does not work."""
    chosen = []

    def pretend(signs, failures=(), obstacle=None):
        device.check_device.cache_clear()
        monkeypatch.setattr(device, "find_sign", dict(signs).get)
        monkeypatch.setattr(device, "probe", dict(failures).get)
        monkeypatch.setattr(device.cuda, "find_obstacle", lambda: obstacle)

    monkeypatch.setattr(device, "set_device", chosen.append)
    yield pretend
    device.check_device.cache_clear()


def test_nothing_there_falls_back_to_cpu_and_says_why(machine):
    machine({})
    assert choose_device() == Device("CPU", "CPU: no /dev/davinci*, no /dev/nvidia*")


def test_ascend_comes_first(machine):
    machine({"Ascend": "/dev/davinci0", "GPU": "/dev/nvidia0"})
    assert choose_device() == Device("Ascend", "Ascend: /dev/davinci0 is there and computes")


def test_gpu_comes_second(machine):
    machine({"GPU": "/dev/nvidia0"})
    chosen = choose_device()
    assert chosen.target == "GPU"
    assert chosen.reason == "GPU: no /dev/davinci*, /dev/nvidia0 is there and computes"


def test_a_device_that_fails_its_probe_is_passed_over(machine):
    machine({"GPU": "$CUDA_HOME"}, {"GPU": "no driver"})
    assert choose_device().reason == (
        "CPU: no /dev/davinci*, GPU ($CUDA_HOME) does not work: no driver"
    )


def test_a_gpu_that_something_keeps_from_us_is_not_probed(machine):
    machine({"GPU": "/dev/nvidia0"}, obstacle="x missing: pip install x==1")
    assert choose_device() == Device(
        "CPU",
        "CPU: no /dev/davinci*, GPU (/dev/nvidia0) does not work: x missing: pip install x==1",
    )


@pytest.mark.parametrize("name", ["gpu", "Ascend"])
def test_a_named_device_that_is_not_there_is_an_error_of_one_line(machine, name):
    machine({})
    with pytest.raises(DeviceError, match=f"(?i){name} cannot be used: no /dev/") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_device_is_an_error_that_lists_the_known_ones(machine):
    machine({})
    with pytest.raises(DeviceError, match="'cuda'; there are auto, Ascend, GPU, CPU"):
        choose_device("cuda")


def test_signs(monkeypatch, tmp_path):
    monkeypatch.setattr(device.glob, "glob", lambda pattern: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("ASCEND_HOME_PATH", "CUDA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert device.find_sign("Ascend") is None and device.find_sign("GPU") is None
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    assert device.find_sign("Ascend") is None and device.find_sign("GPU") == "$CUDA_HOME"
    monkeypatch.setattr(device.glob, "glob", lambda pattern: [pattern.replace("[0-9]*", "0")])
    assert device.find_sign("Ascend") == "/dev/davinci0"


def test_probe_of_the_cpu_computes():
    assert device.probe("CPU") is None


@pytest.mark.parametrize(
    "message, reason",
    [
        ("No device found. Call stack:\n- a.cc:1", "No device found"),
        ("\n\n----\n- Cuda error:\n----\nThe error[100], no device\n", "The error[100], no device"),
        ("", "exit code 1"),
        (
            "Unsupported device.\nLoad dynamic library: libmindspore_gpu.so failed. No libcuda",
            "libmindspore_gpu.so failed. No libcuda",
        ),
    ],
)
def test_probe_that_fails_gives_one_line(monkeypatch, message, reason):
    monkeypatch.setattr(device, "PROBE", f"raise RuntimeError({message!r})")
    assert device.probe("GPU") == reason


def test_probe_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(device, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(device, "PROBE_SECONDS", 0.2)
    assert device.probe("CPU") == "no answer within 0.2 s"


def test_probe_that_crashes_names_the_signal(monkeypatch):
    monkeypatch.setattr(device, "PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert device.probe("CPU") == "ended by signal 9"


def test_cpu_is_set(cpu):
    import mindspore

    assert cpu == Device("CPU", "CPU: asked for")
    assert mindspore.get_context("device_target") == "CPU"
