"""The command ``taichu``: one module a command, imported only when that command is given."""

import argparse
import importlib
import os
import sys

from taichu.training.interruption import Terminated

COMMANDS = {
    "demo": "build the digits, train on them, evaluate, and write a report",
    "data": "build the digits data set, or check a manifest",
    "train": "run a recipe",
    "tune": "tune a model on your own data: recipe, method, rank and batch are chosen",
    "launch": "run a recipe on several devices, or machines",
    "plan": "show what a recipe's training would take on so many devices",
    "ascend": "show what a recipe would run on an Ascend, without one",
    "eval": "measure a model on the test split of a manifest",
    "embed": "turn text and media files into unit vectors",
    "index": "keep the embeddings of a collection, to retrieve from",
    "retrieve": "find what of an index is nearest to text and media files",
    "generate": "make text or a media file from text and media files",
    "convert": "take a published language model as a backbone, or write it back",
    "merge": "write a tuned adapter into the weights of its base model",
    "export": "turn a model folder into graphs that run without MindSpore",
    "serve": "answer requests over HTTP in the form of OpenAI's API, with a page to try it",
    "info": "show a model folder, or what is installed and which device is used",
    "doctor": "check this machine: what is missing for its device, and what mends it",
}

# packages that some commands need, and the extra that brings them
EXTRAS = {"jinja2": "train", "matplotlib": "train", "mindspore": "train", "onnx": "train"}
EXTRAS |= {"fastapi": "serve", "prometheus_client": "serve", "uvicorn": "serve"}
EXTRAS |= {"onnxruntime": "runtime", "faiss": "index", "mlxtend": "demo", "sklearn": "demo"}
EXTRAS |= {"tokenizers": "tokenizers"}

EPILOG = """\
examples:
  taichu demo
  taichu data build digits data/digits
  taichu train pretrain manifest=data/digits/manifest.jsonl codecs=runs/codecs
  taichu generate runs/demo/model --into image --text "a red seven" --out seven.png

exit codes: 0 done, or stopped by SIGTERM with its training saved, 1 an error (one line says
which), 2 wrong usage, 130 interrupted (a training is saved then, too), 142 a step of training hung
`taichu COMMAND --help` explains a command."""


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of examples, and complains in one line."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code.

    Args:
        arguments: what follows ``taichu``; by default the process's own.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = parse(given)
    try:
        return options.run(options) or 0
    except Terminated:
        return 0
    except KeyboardInterrupt:
        print("taichu: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `taichu info | head`: nobody reads on; Python must not flush either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.debug:
            raise
        print(f"taichu: {describe(error)}", file=sys.stderr)
        return 1


def parse(given: list[str]) -> argparse.Namespace:
    """Read a command and its options; ``run`` of what is returned is the command."""
    import taichu

    parser = Parser(prog="taichu", description=taichu.__doc__.splitlines()[0], epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"taichu {taichu.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = importlib.import_module(f"taichu.command_line.{name}")
            command.description = module.__doc__
            module.add_options(command)
            add_debug(command)
    if chosen is not None and chosen not in COMMANDS:
        from taichu.config import nearest

        parser.error(f"unknown command {chosen!r}{nearest(chosen, COMMANDS)}")
    options, rest = parser.parse_known_args(given)
    # argparse takes overrides in one stretch only: those behind an option are left over
    if hasattr(options, "overrides") and not any(word.startswith("-") for word in rest):
        options.overrides += rest
    elif rest:
        parser.error(f"{chosen}: unrecognized arguments: {' '.join(rest)}")
    return options


def add_debug(command: argparse.ArgumentParser):
    """The option that every command has, its own commands too."""
    for action in command._subparsers._group_actions if command._subparsers else ():
        for inner in action.choices.values():
            add_debug(inner)
    if not command._subparsers:
        command.add_argument("--debug", action="store_true", help="show an error's traceback")


def describe(error: Exception) -> str:
    """An error in one line."""
    from ascend.errors import HardwareError
    from modality_adapters.errors import MediaError
    from taichu.errors import TaichuError

    line = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"{error.name} is not installed: pip install 'taichu[{EXTRAS[error.name]}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (TaichuError, MediaError, HardwareError, OSError)):
        return line
    return f"{type(error).__name__}: {line[:300]} (--debug shows where)"
