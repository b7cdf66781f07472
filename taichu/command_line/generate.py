"""Make text or media files from any subset of text and media files, none included.

The same seed makes the same result. --out's suffix chooses the kind of file; text is printed where
no --out is given for it, as it comes. Of several --into, made one behind the other in this order,
each --out is written by the one whose kind of file it is.

examples:
  taichu generate runs/demo/model --into image --text "a red seven" --out seven.png
  taichu generate runs/demo/model --into text --image seven.png
  taichu generate runs/demo/model --into audio --image seven.png --out seven.wav --seed 3
  taichu generate runs/demo/model --into text --into image --audio seven.wav --out seven.png"""

import argparse
import dataclasses
from pathlib import Path

from modality_adapters import ADAPTERS
from modality_adapters.files import require_suffix
from taichu.command_line.options import add_device, add_inputs, inputs, load_model


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    add = parser.add_argument
    add(
        "--into",
        required=True,
        action="append",
        choices=list(ADAPTERS),
        help="what is made; may be repeated",
    )
    add(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="where it is written; needed for each of media",
    )
    add_inputs(parser, repeatable=False)
    sampling = parser.add_argument_group("how tokens are chosen")
    add = sampling.add_argument
    add("--seed", type=int, default=0, help="of the draws (default 0)")
    add("--temperature", type=float, default=0.0, help="0: the most likely token (default 0)")
    add("--top-k", type=int, default=0, help="among this many; 0: all (default 0)")
    add("--top-p", type=float, default=1.0, help="among the fewest that reach this (default 1)")
    add("--min-p", type=float, default=0.0, help="at least this share of the likeliest (default 0)")
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="on the logits of ids that are there already; above 1 against them (default 1)",
    )
    add("--stop", action="append", metavar="STRING", help="ends a text; may be repeated")
    add("--guidance", type=float, default=1.0, help="classifier-free guidance scale (default 1)")
    add("--pieces", type=int, default=32, help="longest text, in pieces (default 32)")
    add(
        "--candidates",
        type=int,
        default=1,
        help="make so many, keep the one nearest what was given; needs a temperature (default 1)",
    )
    add_device(parser)
    parser.set_defaults(run=run, error=parser.error)


def run(options: argparse.Namespace):
    files = match_files(options)
    lowest = {"temperature": 0, "top_k": 0, "guidance": 0, "pieces": 1, "seed": 0, "candidates": 1}
    for name, low in lowest.items():
        if not getattr(options, name) >= low:
            options.error(f"--{name.replace('_', '-')} must be at least {low}")
    if not 0 < options.top_p <= 1:
        options.error("--top-p must be above 0 and at most 1")
    if not 0 <= options.min_p <= 1:
        options.error("--min-p must be from 0 to 1")
    if not options.repetition_penalty > 0:
        options.error("--repetition-penalty must be above 0")
    options.stop = tuple(filter(None, options.stop or ()))
    from taichu.inference.sampling import Sampling

    model = load_model(options)
    for name, path in files.items():  # refused now, not after the work
        if name in model.adapters:
            require_suffix(path, model.adapters[name].suffixes)
    names = (field.name for field in dataclasses.fields(Sampling))
    sampling = Sampling(**{name: getattr(options, name) for name in names})
    given = inputs(options)
    if options.into == ["text"] and not files and options.candidates == 1:
        for piece in model.stream(sampling, **given):
            print(piece, end="", flush=True)
        print()
        return
    for one in model.generate(tuple(options.into), sampling, **given):
        print(one.save(files[one.modality]) if one.modality in files else one.text)


def match_files(options: argparse.Namespace) -> dict[str, str]:
    """Modality -> the file that it is written to."""
    if len(set(options.into)) < len(options.into):
        options.error("--into: each may be named once")
    files = {}
    for path in options.out:
        suffix = Path(path).suffix.lower()
        fitting = [name for name in options.into if suffix in ADAPTERS[name].suffixes]
        if not fitting and len(options.into) == 1:
            fitting = options.into  # its adapter says what is wrong
        left = [name for name in fitting if name not in files]
        if not left:
            options.error(f"--out {path}: none of --into is written as {suffix or 'such a file'}")
        files[left[0]] = path
    for name in options.into:
        if name != "text" and name not in files:
            options.error(f"--out is needed: {name} is written as a file")
    return files
