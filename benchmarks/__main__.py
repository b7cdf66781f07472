"""Runs every benchmark and prints all ratios in one table.

    python benchmarks --json all.json

A ratio is our time (or memory) over the peer's, of medians interleaved in one run: below 1, ours
is the smaller. Needs `pip install "taichu[benchmark,demo]"`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import THREADS, machine, options, write_ratios

PARTS = ("train_step", "first_step", "adapters", "packing")


def main():
    chosen = options(__doc__, runs=None).parse_args()
    turns = ["--runs", str(chosen.runs)] if chosen.runs else []
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            print(f"== {part}", flush=True)
            path = Path(folder) / f"{part}.json"
            program = Path(__file__).with_name(f"{part}.py")
            subprocess.run([sys.executable, program, "--json", path, *turns], check=True)
            prefix = "train_step." if part == "train_step" else ""
            found = json.loads(path.read_text(encoding="utf-8"))
            ratios |= {prefix + key: ratio for key, ratio in found.items()}
    print(f"\n{machine()}; {THREADS} threads; ours over the peer's")
    for key, ratio in ratios.items():
        print(f"{key:<28} {ratio:6.2f}")
    write_ratios(chosen.json, ratios)


if __name__ == "__main__":
    main()
