"""Checks of an Ascend machine: CANN, the driver, the chips and the links between them."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ascend.doctor.check import BROKEN, MISSING, OK, Finding, Places, ask

CANN_VERSIONS = ("8.2", "8.3", "8.5", "9.0", "9.1")  # that MindSpore 2.10 is made for
CANN_FOLDERS = ("cann", "ascend-toolkit", "nnae", "cann-*")  # below the installers' folder
INSTALL_CANN = (
    f"install CANN {CANN_VERSIONS[-1]}: bash Ascend-cann-toolkit_*.run --install, "
    "then the operator package of the chip"
)
INSTALL_DRIVER = (
    "bash Ascend-hdk-*-npu-driver_*.run --full --install-for-all "
    "(a container: -v /usr/local/Ascend/driver:/usr/local/Ascend/driver)"
)
# what set_env.sh puts into the environment, as MindSpore itself looks for it
VARIABLES = {
    "ASCEND_OPP_PATH": "/opp",
    "LD_LIBRARY_PATH": "/lib64",
    "PYTHONPATH": "opp/built-in/op_impl/ai_core/tbe",
}
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")


def check_cann(places: Places) -> Finding:
    home = os.environ.get("ASCEND_HOME_PATH")
    script = _find_script(places)
    if not home and script is None:
        return Finding(MISSING, f"no ASCEND_HOME_PATH, nothing in {places.ascend}", INSTALL_CANN)
    if home and not Path(home).is_dir():
        remedy = f"source {script}" if script else INSTALL_CANN
        return Finding(BROKEN, f"ASCEND_HOME_PATH={home} is no folder", remedy)
    folder = Path(home) if home else script.parent
    version = _read_version(
        *(folder / "compiler/version.info", folder / "latest/compiler/version.info"),
        *sorted(folder.glob("*-linux/ascend_toolkit_install.info")),
    )
    if version is None:
        return Finding(OK, f"of unknown version in {folder}")
    found = f"{version} in {folder}"
    if ".".join(version.split(".")[:2]) in CANN_VERSIONS:
        return Finding(OK, found)
    return Finding(BROKEN, f"{found}, not one of {', '.join(CANN_VERSIONS)}", INSTALL_CANN)


def check_environment(places: Places) -> Finding:
    script = _find_script(places) or "CANN's set_env.sh"
    if not os.environ.get("ASCEND_HOME_PATH"):
        return Finding(MISSING, "ASCEND_HOME_PATH is not set", f"source {script}")
    lacking = [name for name, part in VARIABLES.items() if part not in os.environ.get(name, "")]
    if lacking:
        return Finding(BROKEN, f"{', '.join(lacking)} without CANN's folders", f"source {script}")
    return Finding(OK, "set_env.sh is sourced")


def _find_script(places: Places) -> Path | None:
    """The set_env.sh of a CANN that is installed."""
    home = os.environ.get("ASCEND_HOME_PATH")
    folders = [Path(home)] if home else []
    for pattern in CANN_FOLDERS:
        folders += sorted(places.ascend.glob(pattern), reverse=True)
    scripts = (folder / "set_env.sh" for folder in folders)
    return next(filter(Path.is_file, scripts), None)


def check_driver(places: Places) -> Finding:
    path = places.ascend / "driver" / "version.info"
    version = _read_version(path)
    if version:
        return Finding(OK, version)
    if path.exists():
        return Finding(BROKEN, f"{path} tells no version", INSTALL_DRIVER)
    return Finding(MISSING, f"no {path}", INSTALL_DRIVER)


def _read_version(*paths: Path) -> str | None:
    """The version that the first of these files tells."""
    for path in filter(Path.is_file, paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        told = re.search(r"^version=(\d+\.[\w.]+)", text, re.MULTILINE | re.IGNORECASE)
        if told:
            return told[1]
    return None


def check_npu_smi(places: Places) -> Finding:
    if not shutil.which("npu-smi"):
        mount = "-v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi"
        remedy = f"the driver brings it: {INSTALL_DRIVER}, {mount}"
        return Finding(MISSING, "npu-smi is not on the PATH", remedy)
    said, failure = ask("npu-smi", "info")
    if failure:
        return Finding(BROKEN, failure, "npu-smi info; dmesg | grep -i davinci")
    # | 0     910B2      | OK     | 93.6 ... : number, name, health
    rows = re.findall(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*([A-Za-z]+)\s*\|", said, re.MULTILINE)
    if not rows:
        return Finding(BROKEN, "npu-smi lists no chip", INSTALL_DRIVER)
    found = f"{len(rows)} x {rows[0][1]}"
    ill = [f"NPU {number}: {health}" for number, _, health in rows if health != "OK"]
    if ill:
        remedy = "npu-smi info -t health -i NPU; npu-smi set -t reset -i NPU -c 0"
        return Finding(BROKEN, f"{found}, {', '.join(ill)}", remedy)
    return Finding(OK, f"{found}, all healthy")


def check_devices(places: Places) -> Finding:
    numbers = _find_numbers(places)
    names = [f"davinci{number}" for number in numbers] or ["davinci0"]
    files = [places.devices / name for name in (*names, *MANAGERS)]
    lacking = [file for file in files if not file.exists()]
    if lacking:
        options = " ".join(f"--device {file}" for file in lacking)
        remedy = f"load the driver (a container: {options})"
        return Finding(MISSING, f"no {', '.join(map(str, lacking))}", remedy)
    closed = [str(file) for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        remedy = "usermod -aG HwHiAiUser $USER, then log in again"
        return Finding(BROKEN, f"{', '.join(closed)} may not be opened", remedy)
    return Finding(OK, f"{len(numbers)} of {places.devices}/davinci*, open to this user")


def check_links(places: Places) -> Finding:
    """Whether HCCL can reach other machines: each chip's own network port."""
    tool = shutil.which("hccn_tool") or str(places.ascend / "driver" / "tools" / "hccn_tool")
    if not Path(tool).exists():
        return Finding(MISSING, "no hccn_tool", f"the driver brings it: {INSTALL_DRIVER}")
    numbers = _find_numbers(places)
    if not numbers:
        return Finding(MISSING, f"no {places.devices}/davinci*", INSTALL_DRIVER)
    with ThreadPoolExecutor(len(numbers)) as pool:
        links = list(pool.map(lambda number: _ask_link(tool, number), numbers))
    down = [f"NPU {n}: {link}" for n, (link, _) in zip(numbers, links) if link != "UP"]
    ill = [f"NPU {n}: {health}" for n, (_, health) in zip(numbers, links) if health != "Success"]
    if down:
        remedy = f"check the cable and the switch: {tool} -i NPU -link -g"
        return Finding(BROKEN, f"links not up: {', '.join(down)}", remedy)
    unmeasured = [line for line in ill if line.endswith(" Init")]
    if len(ill) > len(unmeasured):
        remedy = f"{tool} -i NPU -ip -g; {tool} -i NPU -netdetect -s address GATEWAY"
        return Finding(BROKEN, f"links up, health not: {', '.join(ill)}", remedy)
    never = f", {len(unmeasured)} never measured (no -netdetect address)" if unmeasured else ""
    return Finding(OK, f"{len(numbers)} links up{never}")


def _ask_link(tool: str, number: int) -> tuple[str, str]:
    """A chip's link and health in hccn_tool's words, or why it does not say."""

    def status(option: str, name: str) -> str:
        said, failure = ask(tool, "-i", str(number), option, "-g")
        told = re.search(rf"{name} status: (.+)", said)
        return told[1].strip() if told else failure or "says nothing"

    return status("-link", "link"), status("-net_health", "net health")


def _find_numbers(places: Places) -> list[int]:
    names = (file.name for file in places.devices.glob("davinci*"))
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"davinci(\d+)", name)))


CHECKS = {
    "CANN": check_cann,
    "CANN environment": check_environment,
    "Ascend driver": check_driver,
    "npu-smi": check_npu_smi,
    "NPU devices": check_devices,
    "HCCL links": check_links,
}
