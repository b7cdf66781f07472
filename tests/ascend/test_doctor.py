"""The doctor on made-up machines: folders, programs and limits that a test sets up."""

import os
import re
import resource
import socket
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from ascend import device
from ascend.doctor import STATES, Places, check, device_in_use, examine, gpu, host, npu, software

ROOT = Path(__file__).parents[2]
TABLE = """
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B2               | OK            | 93.6        40                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3161 / 65536         |
+===========================+===============+====================================================+
| 1     910B2               | OK            | 90.1        41                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3159 / 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 1712733       | python                   | 48954                   |
| No running processes found in NPU 1                                                            |
"""


def say(text: str) -> str:
    """A script that prints a text; the shell alone can do it."""
    return "while read -r line; do echo \"$line\"; done <<'END'\n" + text + "\nEND"


@pytest.fixture
def places(tmp_path, monkeypatch, program):
    """An Ascend machine of two chips in perfect health; what is needed of it is returned."""
    places = Places(
        devices=tmp_path / "dev",
        ascend=tmp_path / "Ascend",
        operators=tmp_path,
        meminfo=tmp_path / "meminfo",
        work=tmp_path,
    )
    places.devices.mkdir()
    for name in ("davinci0", "davinci1", *npu.MANAGERS):
        (places.devices / name).touch()
    driver, home = places.ascend / "driver", places.ascend / "cann-9.1.0"
    for path, text in {
        driver / "version.info": "package_version=25.5.0\nVersion=25.5.0\n",
        home / "set_env.sh": "",
        home / "compiler" / "version.info": "Version=9.1.0.1.220\nversion_dir=9.1.0\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places.meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable:    8388608 kB\n")
    program("npu-smi", say(TABLE))
    program(
        "hccn_tool",
        "case $3 in -link) echo link status: UP;; *) echo net health status: Success;; esac",
    )
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    monkeypatch.setenv("ASCEND_OPP_PATH", f"{home}/opp")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{home}/lib64")
    monkeypatch.setenv("PYTHONPATH", f"{home}/opp/built-in/op_impl/ai_core/tbe")
    return places


@pytest.fixture
def machine(monkeypatch):
    """machine(signs, works): where a device may be, and which compute."""

    def pretend(signs=(), works=("CPU",)):
        monkeypatch.setattr(device, "find_sign", lambda t: f"/dev/{t}" if t in signs else None)
        said = {t: (t in works, "computes" if t in works else "it is ill") for t in device.TARGETS}
        monkeypatch.setattr(device, "check_device", said.get)
        monkeypatch.setattr(device, "probe", lambda t: None if t in works else "it is ill")

    return pretend


def states(checks) -> dict[str, str]:
    return {c.name: c.state for c in checks}


def test_a_healthy_ascend_machine(places, machine):
    machine(signs=["Ascend"], works=["Ascend", "CPU"])
    checks = {c.name: c for c in examine(places=places)}
    assert {checks[name].state for name in npu.CHECKS} == {"ok"}
    assert {checks[name].state for name in gpu.CHECKS} == {"not needed"}
    assert not any(checks[name].remedy for name in npu.CHECKS)
    assert checks["CANN"].found == f"9.1.0.1.220 in {places.ascend}/cann-9.1.0"
    assert checks["Ascend driver"].found == "25.5.0"
    assert checks["npu-smi"].found == "2 x 910B2, all healthy"
    assert checks["HCCL links"].found == "2 links up"
    assert device_in_use(checks.values()) == list(checks)[-1] == "Ascend"


def test_an_ascend_machine_with_nothing_installed(places, machine, monkeypatch, tmp_path):
    machine(signs=["Ascend"])
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("ASCEND_HOME_PATH", *npu.VARIABLES):
        monkeypatch.delenv(variable)
    bare = Places(devices=tmp_path / "no", ascend=tmp_path / "no", work=tmp_path)
    checks = {c.name: c for c in examine(places=bare)}
    assert {checks[name].state for name in npu.CHECKS} == {"missing"}
    assert all(checks[name].remedy for name in npu.CHECKS)
    assert checks["Ascend"].state == "broken" and checks["CPU"].state == "ok"
    assert device_in_use(checks.values()) == "CPU"


@pytest.mark.parametrize(
    "signs, works, name, expected, used",
    [
        ([], ["CPU"], "auto", {"Ascend": "not needed", "GPU": "not needed", "CPU": "ok"}, "CPU"),
        (["GPU"], ["GPU", "CPU"], "auto", {"Ascend": "not needed", "GPU": "ok"}, "GPU"),
        (["GPU"], [], "auto", {"Ascend": "not needed", "GPU": "broken", "CPU": "broken"}, None),
        ([], ["CPU"], "Ascend", {"Ascend": "missing"}, None),
        (["Ascend"], ["CPU"], "Ascend", {"Ascend": "broken"}, None),
        (["Ascend"], ["Ascend", "CPU"], "CPU", {"CPU": "ok"}, "CPU"),
    ],
)
def test_devices_are_tried_until_one_works(places, machine, signs, works, name, expected, used):
    machine(signs, works)
    checks = list(examine(name, places=places))
    assert {c.name: c.state for c in checks if c.name in device.TARGETS} == expected
    assert device_in_use(checks) == used
    needed = states(checks)["npu-smi"] != "not needed"
    assert needed == (name == "Ascend" or name == "auto" and "Ascend" in signs)


def test_every_check_says_what_mends_it(places, machine):
    machine(signs=["Ascend", "GPU"])
    (places.ascend / "driver" / "version.info").unlink()
    for found in examine(master="no-such-host.invalid", places=places):
        assert found.state in STATES and found.found and "\n" not in found.found
        assert bool(found.remedy) == (found.state in ("missing", "broken")), found


def test_a_check_that_fails_hides_nothing(places, machine):
    machine()
    places.meminfo.unlink()
    checks = {c.name: c for c in examine(places=places)}
    assert checks["memory"].state == "broken"
    assert checks["memory"].found.startswith("the check itself failed: FileNotFoundError: ")
    assert checks["disk"].state == checks["CPU"].state == "ok"


@pytest.mark.parametrize(
    "script, state, found",
    [
        (say(TABLE.replace("| OK  ", "| Alarm", 1)), "broken", "2 x 910B2, NPU 0: Alarm"),
        (say(TABLE.replace("910B2", "Ascend910")), "ok", "2 x Ascend910, all healthy"),
        ("echo 'dcmi module initialize failed. ret is -8005'; exit 255", "broken", "-8005"),
        ("echo all is well", "broken", "npu-smi lists no chip"),
        (r"printf '\033[2J\377\000| 0 910B2 | OK'; exit 1", "broken", "exit code 1: [2J"),
        ("kill -9 $$", "broken", "npu-smi: exit code -9"),
    ],
)
def test_npu_smi(places, program, script, state, found):
    program("npu-smi", script)
    result = npu.check_npu_smi(places)
    assert result.state == state and found in result.found


def test_a_program_that_hangs_is_given_up(places, program, monkeypatch):
    monkeypatch.setattr(check, "SECONDS", 0.2)
    for name in ("npu-smi", "hccn_tool"):
        program(name, "/bin/sleep 1000")
    assert npu.check_npu_smi(places)[:2] == ("broken", "npu-smi: no answer within 0.2 s")
    links = npu.check_links(places)
    assert links.state == "broken" and links.found.count("no answer within 0.2 s") == 2


@pytest.mark.parametrize(
    "link, health, state, found",
    [
        ("link status: UP", "net health status: Success", "ok", "2 links up"),
        ("link status: DOWN", "net health status: Fault", "broken", "NPU 0: DOWN, NPU 1: DOWN"),
        ("link status: UP", "net health status: Fault", "broken", "NPU 0: Fault, NPU 1: Fault"),
        (
            "link status: UP",
            "net health status: Init",
            "ok",
            "2 links up, 2 never measured (no -netdetect address)",
        ),
        ("Command execute failed", "", "broken", "NPU 0: says nothing, NPU 1: says nothing"),
    ],
)
def test_links(places, program, link, health, state, found):
    program("hccn_tool", f"case $3 in -link) echo {link};; -net_health) echo {health};; esac")
    result = npu.check_links(places)
    assert result.state == state and result.found.endswith(found)


def test_links_are_asked_chip_by_chip(places, program):
    program(
        "hccn_tool",
        "case $2$3 in 1-link) echo link status: DOWN;; *-link) echo link status: UP;; esac",
    )
    assert npu.check_links(places).found == "links not up: NPU 1: DOWN"


def test_hccn_tool_where_the_driver_has_it(places, program):
    tool = program("hccn_tool", "echo link status: UP; echo net health status: Success")
    (places.ascend / "driver" / "tools").mkdir()
    tool.rename(places.ascend / "driver" / "tools" / "hccn_tool")
    assert npu.check_links(places) == ("ok", "2 links up", "")


@pytest.mark.parametrize(
    "version, state", [("8.1.RC1", "broken"), ("8.2.RC1.1", "ok"), ("9.2.0", "broken")]
)
def test_cann_versions(places, version, state):
    home = places.ascend / "cann-9.1.0"
    (home / "compiler" / "version.info").write_text(f"Version={version}\n")
    result = npu.check_cann(places)
    assert result.state == state and result.found.startswith(f"{version} in {home}")


def test_mindspores_versions_of_cann():
    """MindSpore names in its own check what it was made for."""
    package = Path(metadata.distribution("mindspore").locate_file("mindspore"))
    text = (package / "run_check" / "_check_version.py").read_text(encoding="utf-8")
    told = re.search(r"class AscendEnvChecker.*?self\.version = \[(.*?)\]", text, re.DOTALL)[1]
    assert tuple(re.findall(r'"(.*?)"', told)) == npu.CANN_VERSIONS
    assert all(part in text for part in npu.VARIABLES.values())


def test_cann_that_tells_its_version_elsewhere_or_not_at_all(places):
    home = places.ascend / "cann-9.1.0"
    (home / "compiler" / "version.info").unlink()
    assert npu.check_cann(places) == ("ok", f"of unknown version in {home}", "")
    (home / "x86_64-linux").mkdir()
    (home / "x86_64-linux" / "ascend_toolkit_install.info").write_text(
        "package_name=Ascend-cann-toolkit\nversion=9.0.0\n"
    )
    assert npu.check_cann(places).found == f"9.0.0 in {home}"


def test_cann_that_is_not_sourced(places, monkeypatch):
    script = places.ascend / "cann-9.1.0" / "set_env.sh"
    monkeypatch.delenv("PYTHONPATH")
    assert npu.check_environment(places) == (
        "broken",
        "PYTHONPATH without CANN's folders",
        f"source {script}",
    )
    monkeypatch.delenv("ASCEND_HOME_PATH")
    assert npu.check_environment(places)[::2] == ("missing", f"source {script}")
    assert npu.check_cann(places).state == "ok"
    monkeypatch.setenv("ASCEND_HOME_PATH", "/removed")
    assert npu.check_cann(places) == (
        "broken",
        "ASCEND_HOME_PATH=/removed is no folder",
        f"source {script}",
    )


def test_devices_that_a_container_was_not_given(places, monkeypatch):
    (places.devices / "devmm_svm").unlink()
    result = npu.check_devices(places)
    assert result.state == "missing" and f"--device {places.devices}/devmm_svm" in result.remedy
    (places.devices / "devmm_svm").touch()
    monkeypatch.setattr(npu.os, "access", lambda path, mode: path.name != "davinci1")
    result = npu.check_devices(places)
    assert result[:2] == ("broken", f"{places.devices}/davinci1 may not be opened")


def test_a_driver_file_without_a_version(places):
    (places.ascend / "driver" / "version.info").write_bytes(b"\xff\x00nothing")
    assert npu.check_driver(places).state == "broken"


def test_gpu_wheels(places, program, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.cuda.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(gpu.cuda, "RPATH", tmp_path / "cuda")
    monkeypatch.setattr(gpu.cuda, "load_error", lambda name: "not there")
    folder = tmp_path / "nvidia" / "all" / "lib"
    folder.mkdir(parents=True)
    for name in ("libcudart.so.11.0", "libcublas.so.11"):
        (folder / name).touch()
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "libcufft.so.10").touch()
    found = {name: gpu.CHECKS[name](places) for name in gpu.CHECKS if name.startswith("nvidia-cu")}
    assert found["nvidia-cuda-runtime-cu11"].state == "ok"
    assert found["nvidia-cublas-cu11"] == (
        "broken",
        "without libcublasLt.so.11",
        "pip install --force-reinstall nvidia-cublas-cu11==11.11.3.6",
    )
    assert found["nvidia-cudnn-cu11"] == (
        "missing",
        "no libcudnn.so.8",
        "pip install nvidia-cudnn-cu11==8.9.6.50",
    )
    assert found["nvidia-cufft-cu11"] == ("ok", "libcufft.so.10 of a system-wide CUDA", "")
    assert gpu.check_driver(places).state == "missing"


@pytest.mark.parametrize(
    "script, state, found",
    [
        (
            "echo NVIDIA A100, 81920 MiB, 8.0; echo NVIDIA A100, 81920 MiB, 8.0",
            "ok",
            "A100, 81920 MiB;",
        ),
        ("echo NVIDIA H100, 81559 MiB, 9.0", "broken", "compute capability 9.0"),
        ("echo no contact with the driver; exit 9", "broken", "exit code 9: no contact"),
        (":", "broken", "nvidia-smi lists no card"),
    ],
)
def test_nvidia_smi(places, program, script, state, found):
    program("nvidia-smi", script)
    result = gpu.check_nvidia_smi(places)
    assert result.state == state and found in result.found


def test_cuda_home(places, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(gpu.cuda.SHIM))
    assert gpu.check_home(places) == ("ok", str(gpu.cuda.SHIM), "")
    monkeypatch.delenv("CUDA_HOME")
    assert gpu.check_home(places)[::2] == ("missing", "pip install 'taichu[gpu]'")


def test_python_and_packages(places, monkeypatch):
    assert software.check_python(places).state == "ok"
    assert software.check_mindspore(places) == ("ok", metadata.version("mindspore"), "")
    assert software.check_numpy(places) == ("ok", metadata.version("numpy"), "")
    monkeypatch.setattr(software.sys, "version_info", (3, 13, 0))
    assert software.check_python(places).state == "broken"
    monkeypatch.setattr(software.metadata, "version", {"mindspore": "2.1.0", "numpy": "2.1"}.get)
    assert software.check_mindspore(places)[1:] == (
        "2.1.0, not 2.10.*",
        "pip install 'mindspore==2.10.*'",
    )
    assert software.check_numpy(places)[1:] == ("2.1, not 1.*", "pip install 'numpy>=1.24,<2'")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(software.metadata, "version", absent)
    assert software.check_mindspore(places).state == "missing"


def test_the_project_asks_for_the_same():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    first, end = (".".join(map(str, version)) for version in software.PYTHONS)
    assert f'requires-python = ">={first},<{end}"' in project
    assert f'"mindspore=={software.MINDSPORE}.*"' in project and '"numpy>=1.24,<2"' in project


def test_kernels_and_their_compiler(places, program, tmp_path):
    assert software.check_kernels(places).state == "missing"
    assert software.check_compiler(places).state == "missing"
    program("clang++", "echo clang version 15; echo Target: x86_64")
    assert software.check_compiler(places) == ("ok", "clang version 15", "")
    program("clang++", "exit 1")
    assert software.check_compiler(places).state == "broken"
    (tmp_path / "programs" / "clang++").unlink()
    (tmp_path / "_cpu_kernels.so").write_text("not a library")
    assert software.check_kernels(places).state == "broken"
    assert software.check_compiler(places).state == "not needed"


def test_msrun(places, monkeypatch, tmp_path):
    found = software.check_msrun(places)
    assert found.state == "ok" and Path(found.found).is_file()
    (tmp_path / "mindspore").mkdir()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "mindspore")])
    for nowhere in (spec, None):
        monkeypatch.setattr(software.importlib.util, "find_spec", lambda name, it=nowhere: it)
        found = software.check_msrun(places)
        assert found.state == "missing" and found.remedy == "pip install 'mindspore==2.10.*'"


def test_memory_and_disk(places):
    assert host.check_memory(places) == ("ok", "8.0 GiB available", "")
    places.meminfo.write_text("MemAvailable:    1048576 kB\n")
    assert host.check_memory(places)[:2] == ("broken", "1.0 GiB available, less than 4")
    free = os.statvfs(places.work)
    there = free.f_bavail * free.f_frsize / host.GIB
    assert float(host.check_disk(places).found.split()[0]) == pytest.approx(there, abs=1)


def test_limits(places):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        assert host.check_open_files(places) == (
            "broken",
            "500, less than 1024",
            "ulimit -n 65535",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_master_that_answers_or_is_not_started_yet():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        quiet = host.check_master(f"127.0.0.1:{port}")
        assert quiet == ("ok", f"127.0.0.1 is there; nobody listens at {port} yet", "")
        server.listen()
        assert host.check_master(f"localhost:{port}") == ("ok", f"localhost:{port} answers", "")


def test_a_master_behind_a_wall(monkeypatch):
    """A server that has no room for a connection is silent, as a firewall is."""
    monkeypatch.setattr(host, "SECONDS", 0.2)
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        port = server.getsockname()[1]
        result = host.check_master(f"127.0.0.1:{port}")
        assert result.state == "broken" and "timed out" in result.found
        assert f"--add-port={port}/tcp" in result.remedy


@pytest.mark.parametrize("master", ["", ":8118", "a:b", "a:1:2", "a:99999", "no-such-host.invalid"])
def test_a_master_that_cannot_be_one(master):
    assert host.check_master(master).state == "broken"
    assert host.check_master(None).state == "not needed"
