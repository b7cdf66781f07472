"""Time to the first training step's result, and peak memory of training, against PyTorch.

    python benchmarks/first_step.py --json first_step.json

Every turn is a process of its own: time runs from the call of the first step, which compiles, to
its result; memory is what the process holds at most in a few steps over what it held before the
network was built. Compiled ways are measured twice: with nothing on disk, and with what an earlier
process kept there. Needs `pip install "taichu[benchmark]"`.
"""

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from harness import THREADS, machine, options, use_threads, write_ratios
from workload import SIZES, batches_of, ours, theirs

WAYS = ("ours", "ours, recomputed", "eager", "compiled")
COMPILED = ("ours", "compiled")


def main():
    parser = options(__doc__, runs=3)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    chosen = parser.parse_args()
    use_threads()
    print(f"{machine()}; {THREADS} threads; {chosen.runs} processes a way")
    ratios = {}
    for size in chosen.sizes:
        new, kept = measure(size, chosen.runs)
        for way, (seconds, megabytes) in new.items():
            again = f", {kept[way]:5.1f} s with the graph kept" if way in kept else ""
            print(
                f"{size:>5} {way:<16} {megabytes:6.0f} MB, first step {seconds:5.1f} s{again}",
                flush=True,
            )
        seconds = {way: figures[0] for way, figures in new.items()}
        memory = {way: figures[1] for way, figures in new.items()}
        found = {
            f"first_step.{size}.compiled": seconds["ours"] / seconds["compiled"],
            f"first_step_kept.{size}.compiled": kept["ours"] / kept["compiled"],
            f"memory.{size}.eager": memory["ours"] / memory["eager"],
            f"memory.{size}.compiled": memory["ours"] / memory["compiled"],
            f"memory_recomputed.{size}.eager": memory["ours, recomputed"] / memory["eager"],
        }
        for key, ratio in found.items():
            ratios[key] = round(ratio, 3)
            print(f"{key}: {ratio:.2f}", flush=True)
    write_ratios(chosen.json, ratios, chosen.runs)


def measure(size: str, runs: int) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Median (seconds, megabytes) of each way with nothing on disk; median seconds of the compiled
    ones with what another process left there."""
    new, kept = {way: [] for way in WAYS}, {way: [] for way in COMPILED}
    for _ in range(runs):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                new[way].append(in_process(way, size, Path(folder)))
                if way in COMPILED:
                    kept[way].append(in_process(way, size, Path(folder))[0])
    medians = {way: tuple(map(statistics.median, zip(*taken))) for way, taken in new.items()}
    return medians, {way: statistics.median(taken) for way, taken in kept.items()}


def in_process(way: str, size: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first result, and megabytes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    arguments = (there, way, size, folder)
    process = context.Process(target=first_steps, args=arguments, daemon=True)
    process.start()
    figures = here.recv()
    process.join(30)
    return figures


def first_steps(connection, way: str, size: str, folder: Path):
    """A few steps; gives (seconds, megabytes)."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)  # where PyTorch keeps compiled graphs
    batches = batches_of(size)
    if way.startswith("ours"):
        import mindspore  # noqa: F401  what the framework itself holds is not the step's
    else:
        import torch  # noqa: F401
    before = peak()
    if way.startswith("ours"):
        run = ours(size, way.endswith("recomputed"), folder)[1]
    else:
        run = theirs(size, way)
    start = time.perf_counter()
    run(batches[0])
    seconds = time.perf_counter() - start
    for arrays in batches:
        run(arrays)
    connection.send((seconds, peak() - before))


def peak() -> float:
    """Largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
