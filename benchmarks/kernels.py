"""Where a training step's time goes: kernel by kernel, ours and PyTorch eager's.

    python benchmarks/kernels.py --size nano

The tables are to be read, not compared to the microsecond: profilers take time of their own. How
many kernels there are is exact. Needs `pip install "taichu[benchmark]"`.
"""

import argparse

import numpy as np
from harness import THREADS, machine, use_threads
from workload import BATCHES, SIZES, batches_of, ours, theirs

QUERIES = 32  # of a block in ascend/operators/kernels/attention.cpp


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="nano", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=4, help="over the batches (default 4)")
    parser.add_argument("--rows", type=int, default=14, help="of a table (default 14)")
    chosen = parser.parse_args()
    use_threads()
    print(f"{machine()}; {THREADS} threads; {chosen.rounds * BATCHES} steps of {chosen.size}\n")
    for title, profiled in (("ours", of_ours), ("PyTorch eager", of_torch)):
        used = profiled(chosen.size, chosen.rounds)
        print_table(title, used, chosen.rounds * BATCHES, chosen.rows)
    segment, span = batches_of(chosen.size)[0][3:5]
    seen, computed, dense = pairs(segment, span)
    print(
        f"attention: of {dense:,} pairs of tokens {seen:,} see each other ({seen / dense:.1%}); "
        f"{computed:,} are computed ({computed / dense:.1%})"
    )


def of_ours(size: str, rounds: int) -> dict[str, tuple[int, float]]:
    """Calls and seconds by operator."""
    step = ours(size)[1]
    from ascend.profile import profile_kernels, sum_by_operator

    batches = batches_of(size)
    for arrays in batches:
        step(arrays)
    return sum_by_operator(profile_kernels(lambda: [step(a) for a in batches * rounds]))


def of_torch(size: str, rounds: int) -> dict[str, tuple[int, float]]:
    """Calls and seconds by operator, without those it calls."""
    import torch

    step, batches = theirs(size, "eager"), batches_of(size)
    for arrays in batches:
        step(arrays)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for arrays in batches * rounds:
            step(arrays)
    rows = profiler.key_averages()
    return {row.key: (row.count, row.self_cpu_time_total / 1e6) for row in rows}


def print_table(title: str, used: dict[str, tuple[int, float]], steps: int, rows: int):
    """The longest operators, the rest in one row."""
    order = sorted(used.items(), key=lambda item: -item[1][1])
    rest = [figures for _, figures in order[rows:]]
    order = order[:rows] + [("all others", tuple(map(sum, zip(*rest))))] if rest else order
    whole = sum(seconds for _, (_, seconds) in order)
    print(f"| {title} | calls a step | ms a step | share |\n|---|---:|---:|---:|")
    for name, (calls, seconds) in order:
        took = f"{seconds / steps * 1e3:.1f} | {seconds / whole:.0%}"
        print(f"| {name} | {calls / steps:.0f} | {took} |")
    calls = sum(calls for _, (calls, _) in order)
    print(f"| **all** | {calls / steps:.0f} | {whole / steps * 1e3:.1f} | |\n", flush=True)


def pairs(segment: np.ndarray, span: np.ndarray) -> tuple[int, int, int]:
    """Pairs of tokens that see each other, that our kernel computes, and of whole rows."""
    B, L = segment.shape
    place = np.arange(L)
    same = (segment[:, :, None] == segment[:, None]) & (segment[:, :, None] > 0)
    joined = (span[:, :, None] == span[:, None]) & (span[:, :, None] > 0)
    seen = same & ((place[:, None] >= place) | joined)
    computed = 0
    for row, sees in zip(segment, seen):
        for number in range(1, row.max() + 1):
            where = np.flatnonzero(row == number)
            for block in np.split(where, range(QUERIES, len(where), QUERIES)):
                computed += len(block) * (np.flatnonzero(sees[block].any(0))[-1] - where[0] + 1)
    return int(seen.sum()), int(computed), B * L * L


if __name__ == "__main__":
    main()
