"""Make text or a media file from any subset of text and media files, none included.

The same seed makes the same result. --out's suffix chooses the kind of file; text is printed where
no --out is given.

examples:
  taichu generate runs/demo/model --into image --text "a red seven" --out seven.png
  taichu generate runs/demo/model --into text --image seven.png
  taichu generate runs/demo/model --into audio --image seven.png --out seven.wav --seed 3"""

import argparse
import dataclasses

from modality_adapters import ADAPTERS
from taichu.command_line.options import add_device, add_inputs, inputs, load_model


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    parser.add_argument("--into", required=True, choices=list(ADAPTERS), help="what is made")
    parser.add_argument("--out", metavar="FILE", help="where it is written; needed for media")
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
    if options.into != "text" and not options.out:
        options.error(f"--out is needed: {options.into} is written as a file")
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
    from modality_adapters.files import require_suffix
    from taichu.inference.sampling import Sampling

    model = load_model(options)
    if options.out and options.into in model.adapters:  # refused now, not after the work
        require_suffix(options.out, model.adapters[options.into].suffixes)
    names = (field.name for field in dataclasses.fields(Sampling))
    sampling = Sampling(**{name: getattr(options, name) for name in names})
    made = model.generate(options.into, sampling, **inputs(options))
    print(made.save(options.out) if options.out else made.text)
