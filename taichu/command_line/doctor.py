"""Check this machine: what is here, what is missing, and the command that mends it.

Exit code 0 when the device that would be used computes, else 1. With `--device auto` that may be
the CPU of a machine whose NPU or GPU does not work; name a device to insist on it. Devices are
tried last and take longest, an NPU up to some minutes.

examples:
  taichu doctor
  taichu doctor --device Ascend --master 10.0.0.1:8118
  taichu doctor --json > machine.json"""

import argparse
import json
import sys

from ascend.device import TARGETS
from ascend.doctor import device_in_use, examine

NAMES = {name.lower(): name for name in ("auto", *TARGETS)}


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--device",
        default="auto",
        type=lambda name: NAMES.get(name.lower(), name),
        choices=NAMES.values(),
        help="the device that shall be used (default auto)",
    )
    parser.add_argument(
        "--master", metavar="HOST[:PORT]", help="also whether this machine can be reached"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    checks = []
    for check in examine(options.device, options.master):
        checks.append(check)
        if not options.json and check.state != "not needed":
            print(f"{check.state:<8} {check.name:<25} {check.found}")
            if check.remedy:
                print(f"{'':<8} {'':<25} -> {check.remedy}")
            sys.stdout.flush()
    used = device_in_use(checks)
    if options.json:
        content = [check._asdict() for check in checks]
        print(json.dumps({"device": used, "works": used is not None, "checks": content}, indent=2))
    else:
        idle = [check.name for check in checks if check.state == "not needed"]
        print(f"not needed here: {', '.join(idle)}")
        print(f"device: {used or 'none works'}")
    return 0 if used else 1
