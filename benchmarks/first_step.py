"""Time to the first training step's result, and peak memory of training, against PyTorch.

    python benchmarks/first_step.py --json first_step.json

Every turn is a process of its own: time runs from the call of the first step, which compiles, to
its result; memory is what the process holds at most in a few steps over what it held before the
network was built. Needs `pip install "taichu[benchmark]"`.
"""

import multiprocessing
import resource
import statistics
import time

from harness import THREADS, machine, options, use_threads, write_ratios
from workload import SIZES, WAYS, batches_of, ours, theirs


def main():
    parser = options(__doc__, runs=3)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    chosen = parser.parse_args()
    use_threads()
    print(f"{machine()}; {THREADS} threads; {chosen.runs} processes a way")
    ratios = {}
    for size in chosen.sizes:
        taken = {way: [] for way in WAYS}
        for _ in range(chosen.runs):
            for way in WAYS:
                taken[way].append(in_process(way, size))
        median = {way: [statistics.median(x) for x in zip(*taken[way])] for way in WAYS}
        for way, (seconds, megabytes) in median.items():
            print(
                f"{size:>5} {way:<9} first step {seconds:5.1f} s, {megabytes:6.0f} MB", flush=True
            )
        for what, i, ways in (("first_step", 0, WAYS[2:]), ("memory", 1, WAYS[1:])):
            for way in ways:
                key = f"{what}.{size}.{way}"
                ratios[key] = round(median["ours"][i] / median[way][i], 3)
                print(f"{size:>5} {what}, ours / {way}: {ratios[key]:.2f}", flush=True)
    write_ratios(chosen.json, ratios)


def in_process(way: str, size: str) -> tuple[float, float]:
    """Seconds to the first result, and megabytes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=first_steps, args=(there, way, size), daemon=True)
    process.start()
    figures = here.recv()
    process.join(30)
    return figures


def first_steps(connection, way: str, size: str):
    """A few steps; gives (seconds, megabytes)."""
    batches = batches_of(size)
    if way == "ours":
        import mindspore  # noqa: F401  what the framework itself holds is not the step's
    else:
        import torch  # noqa: F401
    before = peak()
    run = ours(size)[1] if way == "ours" else theirs(size, way)
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
