"""Build the digits data set, or check a manifest before training on it.

examples:
  taichu data build digits data/digits
  taichu data check my/manifest.jsonl"""

import argparse
import sys
from pathlib import Path

from taichu.errors import TaichuError

BUILD = """Build a data set as ordinary media files with a manifest.jsonl.

The only one so far is `digits`: ten digits seen, heard, moving, solid and named. The same seed
gives the same bytes; a folder that is finished is left as it is.

examples:
  taichu data build digits data/digits"""

CHECK = """Read every file of a manifest as training would, and list what is wrong, by line.

Exit code 1 when anything is. Problems go to the standard output, one a line: FILE:LINE: what.

examples:
  taichu data check my/manifest.jsonl
  taichu data check my/manifest.jsonl --model base > problems.txt"""


def add_options(parser: argparse.ArgumentParser):
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("build", help="build the digits data set", description=BUILD)
    command.add_argument("name", choices=("digits",), help="digits")
    command.add_argument("out", metavar="OUT", help="a new or empty folder")
    command.add_argument("--seed", type=int, default=0, help="of every draw (default 0)")
    command.add_argument("--processes", type=int, default=2, help="that write (default 2)")
    command.set_defaults(run=build)
    command = commands.add_parser("check", help="list what is wrong in one", description=CHECK)
    command.add_argument("manifest", metavar="FILE", help="the manifest.jsonl")
    command.add_argument(
        "--model",
        default="nano",
        metavar="SIZE",
        help="whose modalities are read: a size's name or YAML file (default nano)",
    )
    command.add_argument("--processes", type=int, default=2, help="that read (default 2)")
    command.set_defaults(run=check)


def build(options: argparse.Namespace):
    try:
        from taichu.data.digits.build import build_digits

        print(build_digits(options.out, options.seed, processes=options.processes))
    except ModuleNotFoundError as error:
        raise TaichuError(f"{error}; pip install 'taichu[demo]' brings it") from None


def check(options: argparse.Namespace) -> int:
    from taichu.config import load_size
    from taichu.data.check import check_manifest

    modalities = load_size(options.model).modalities
    rows, problems = check_manifest(Path(options.manifest), modalities, options.processes)
    for problem in problems:
        print(problem)
    summary = f"{rows} good rows, {len(problems)} problems"
    print(f"{options.manifest}: {summary}", file=sys.stderr)
    return 1 if problems else 0
