"""Build the digits data set, or check data before training on it.

examples:
  taichu data build digits data/digits
  taichu data build digits_tuning data/digits
  taichu data check my/manifest.jsonl
  taichu data check my/conversations.json"""

import argparse
import sys
from pathlib import Path

from taichu.errors import TaichuError

BUILD = """Build a data set as ordinary media files with a manifest.jsonl.

`digits`: ten digits seen, heard, moving, solid and named. `digits_tuning` puts into a folder of
digits, which is built first where it is not there, what the tuning recipes are shown on: negatives
of another handwriting, depth maps, conversations, preferences. The same seed gives the same bytes;
what is finished is left as it is.

examples:
  taichu data build digits data/digits
  taichu data build digits_tuning data/digits"""

CHECK = """Read every file that data names as training would, and list what is wrong, by line.

The data is a manifest, or conversations: messages, ShareGPT, LLaVA, Alpaca, COCO captions, or
questions and answers; or preferences, as TRL, LLaMA-Factory and ms-swift have them. Which it
is, is told by what the file holds.

Exit code 1 when anything is wrong. Problems go to the standard output, one a line: FILE:LINE: what.

examples:
  taichu data check my/manifest.jsonl
  taichu data check my/manifest.jsonl --model base > problems.txt
  taichu data check captions_train2017.json --folder train2017"""


def add_options(parser: argparse.ArgumentParser):
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("build", help="build the digits data set", description=BUILD)
    command.add_argument("name", choices=("digits", "digits_tuning"), help="what is built")
    command.add_argument("out", metavar="OUT", help="a new or empty folder, or one of digits")
    command.add_argument("--seed", type=int, default=0, help="of every draw (default 0)")
    command.add_argument("--processes", type=int, default=2, help="that write (default 2)")
    command.set_defaults(run=build)
    command = commands.add_parser("check", help="list what is wrong in one", description=CHECK)
    command.add_argument("file", metavar="FILE", help="a manifest or conversations")
    command.add_argument("--format", metavar="NAME", help="of the file, where it is not to be told")
    command.add_argument(
        "--folder", metavar="FOLDER", help="that conversations' media are in (default the file's)"
    )
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
        from taichu.data.digits.build import MARKER, build_digits
        from taichu.data.digits.tuning import build_tuning

        out, how = Path(options.out), {"seed": options.seed, "processes": options.processes}
        if options.name == "digits" or not (out / MARKER).is_file():
            print(build_digits(out, **how))
        if options.name == "digits_tuning":
            print(*build_tuning(out, **how), sep="\n")
    except ModuleNotFoundError as error:
        raise TaichuError(f"{error}; pip install 'taichu[demo]' brings it") from None


def check(options: argparse.Namespace) -> int:
    from taichu.config import load_size
    from taichu.data.check import check_conversations, check_manifest
    from taichu.data.conversations.reading import detect_format

    modalities, path = load_size(options.model).modalities, Path(options.file)
    format = options.format
    if format is None:
        format, why = detect_format(path)
        print(why, file=sys.stderr)
    if format == "manifest":
        rows, problems = check_manifest(path, modalities, options.processes)
    else:
        folder = Path(options.folder) if options.folder else None
        rows, problems = check_conversations(path, modalities, format, folder, options.processes)
    for problem in problems:
        print(problem)
    summary = f"{rows} good rows, {len(problems)} problems"
    print(f"{path}: {summary}", file=sys.stderr)
    return 1 if problems else 0
