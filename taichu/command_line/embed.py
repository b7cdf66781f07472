"""Turn text and media files into unit vectors of one space.

Modalities given together form one group, embedded as one. An option may be repeated: the n-th of
each form the n-th group. Prints a JSON list, or writes an array (n, C) with --out.

examples:
  taichu embed runs/demo/model --text "a red seven"
  taichu embed runs/demo/model --image a.png --image b.png --out pictures.npy
  taichu embed runs/demo/model --image a.png --audio a.wav"""

import argparse
import json
from pathlib import Path

from taichu.command_line.options import add_device, add_inputs, inputs, load_model
from taichu.errors import TaichuError


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    add_inputs(parser, repeatable=True)
    parser.add_argument("--out", metavar="FILE.npy", help="write float32 (n, C) instead of JSON")
    add_device(parser)
    parser.set_defaults(run=run, error=parser.error)


def run(options: argparse.Namespace):
    given = inputs(options)
    if not given:
        options.error("nothing to embed; give --text, --image, ...")
    counts = {name: len(values) for name, values in given.items()}
    if len(set(counts.values())) > 1:
        options.error(f"modalities that form groups must be given equally often, not {counts}")
    out = Path(options.out) if options.out else None
    if out and (out.suffix != ".npy" or not out.parent.is_dir()):
        raise TaichuError(f"{out}: must be a .npy file in a folder that exists")
    vectors = load_model(options).embed(**given)
    if out:
        import numpy as np

        np.save(out, vectors)
        print(out)
        return
    groups = [dict(zip(given, values)) for values in zip(*given.values())]
    rows = [{**g, "embedding": [round(float(x), 6) for x in v]} for g, v in zip(groups, vectors)]
    print("[" + ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]")
