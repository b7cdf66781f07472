"""Runs every benchmark and prints all ratios in one table.

    python benchmarks --json all.json

A ratio is our time (or memory) over the peer's, of medians interleaved in one run: below 1, ours
is the smaller. Half an hour on two cores. Needs
`pip install "taichu[train,runtime,index,serve,benchmark,demo]"`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import THREADS, machine, options

PARTS = (
    "train_step",
    "first_step",
    "lora_step",
    "adapters",
    "packing",
    "decode",
    "cold_start",
    "index",
    "server",
)


def main():
    chosen = options(__doc__, runs=None).parse_args()
    turns = ["--runs", str(chosen.runs)] if chosen.runs else []
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            print(f"== {part}", flush=True)
            path = Path(folder) / f"{part}.json"
            program = Path(__file__).with_name(f"{part}.py")
            subprocess.run([sys.executable, program, "--json", path, *turns], check=True)
            found[part] = json.loads(path.read_text(encoding="utf-8"))
    print(f"\n{machine()}; {THREADS} threads; ours over the peer's\n")
    print("| | ours / peer's | runs |\n|---|---:|---:|")
    for part in found.values():
        for key, ratio in part["ratios"].items():
            print(f"| {key} | {ratio:.2f} | {part['runs']} |")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
