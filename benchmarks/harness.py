"""What all benchmarks share: turns that take each other's place, medians, ratios, the machine."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2


def options(description: str, runs: int | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; None leaves the runs to others."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--runs", type=int, default=runs, help=f"turns a way (default {runs or 'each its own'})"
    )
    parser.add_argument("--json", type=Path, help="write the ratios to this file")
    return parser


def interleaved(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of a call of each way, called in turn so that all meet the same load.

    One turn ahead is not timed: caches, and what is made at the first call.
    """
    seconds = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def write_ratios(path: Path | None, ratios: dict[str, float], runs: int) -> None:
    """Write {key: our figure over the peer's}, and how many runs a way, where a file is named."""
    if path:
        content = {"machine": machine(), "threads": THREADS, "runs": runs, "ratios": ratios}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> str:
    """Name of the machine and of its processor."""
    names = [platform.node()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        names += [line.split(":")[1].strip() for line in lines if line.startswith("model name")][:1]
    return ", ".join([*names, f"{os.cpu_count()} cores"])


def use_threads(count: int = THREADS) -> None:
    """Keep this process and its children to as many cores, whatever each library would take."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)
