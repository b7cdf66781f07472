"""Build the digits, train on them, evaluate, and write a report: the whole of taichu in 15 minutes.

Writes report.html, metrics.json and the model folder, and prints where they are. Given again, it
goes on or reuses what is there. Every key of recipes/demo.yaml can be set: key=value.

examples:
  taichu demo
  taichu demo out=runs/other seed=1"""

import argparse

from taichu.command_line import train


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to its keys")
    parser.add_argument("--device", metavar="NAME", help="auto, Ascend, GPU or CPU; sets device=")
    parser.set_defaults(run=train.run, recipe="demo", dry_run=False)
