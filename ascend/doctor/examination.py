"""All checks in turn, and which device would be used."""

from collections.abc import Callable, Iterable, Iterator

from ascend import device
from ascend.device import TARGETS
from ascend.doctor import gpu, host, npu, software
from ascend.doctor.check import BROKEN, HERE, MISSING, NOT_NEEDED, OK, Check, Finding, Places


def examine(
    name: str = "auto", master: str | None = None, places: Places = HERE
) -> Iterator[Check]:
    """Make every check, one after the other; the last, which take longest, are the devices.

    What belongs to a device that is neither named nor here is not needed. Under a device's own
    name stands whether it computes: those before the one that would be used, and that one.

    Args:
        name: the device that shall be used: "auto", or one of TARGETS.
        master: HOST or HOST:PORT of the machine that starts a cluster; None for none.
        places: where to look.
    """
    yield from _run(software.CHECKS, places)
    for target, checks in (("Ascend", npu.CHECKS), ("GPU", gpu.CHECKS)):
        if name == target or (name == "auto" and device.find_sign(target)):
            yield from _run(checks, places)
        else:
            why = f"no {target} is here" if name == "auto" else f"{name} shall be used"
            yield from (Check(check, NOT_NEEDED, why, "") for check in checks)
    yield from _run(host.CHECKS, places)
    yield from _run({"master": lambda _: host.check_master(master)}, places)
    for target in TARGETS if name == "auto" else (name,):
        tried = {target: lambda _, target=target: _check_device(target, name == "auto")}
        (check,) = _run(tried, places)
        yield check
        if check.state == OK:
            return


def device_in_use(checks: Iterable[Check]) -> str | None:
    """The device that would be used and works, as a finished examination says; None for none."""
    return next((c.name for c in checks if c.name in TARGETS and c.state == OK), None)


def _run(checks: dict[str, Callable[[Places], Finding]], places: Places) -> Iterator[Check]:
    for name, check in checks.items():
        try:
            finding = check(places)
        except Exception as error:  # one sick corner must not hide what the others say
            line = f"the check itself failed: {type(error).__name__}: {error}"
            finding = Finding(BROKEN, line, "report it with this line")
        yield Check(name, finding.state, " ".join(finding.found.split()), finding.remedy)


def _check_device(target: str, choosing: bool) -> Finding:
    if device.find_sign(target) is None and target != "CPU":
        found = device.check_device(target)[1]
        if choosing:
            return Finding(NOT_NEEDED, found)
        return Finding(MISSING, found, "use another machine, or --device auto")
    works, reason = device.check_device(target)
    if target == "CPU":  # it is taken to work, but MindSpore may not
        failure = device.probe("CPU")
        works, reason = failure is None, failure or "computes"
    return Finding(OK, reason) if works else Finding(BROKEN, reason, "mend what is told above")
