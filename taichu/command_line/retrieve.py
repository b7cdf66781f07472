"""Find what of a manifest is nearest to text and media files, by cosine of their embeddings.

Modalities given together form one query. Candidates are all texts, or all files of one modality,
of a split of the manifest.

examples:
  taichu retrieve runs/demo/model data/digits/manifest.jsonl --into image --text "a red seven"
  taichu retrieve runs/demo/model my/manifest.jsonl --into video --image q.png --audio q.wav
  taichu retrieve runs/demo/model my/manifest.jsonl --into text --image q.png --top 3 --json"""

import argparse
import json

from modality_adapters import ADAPTERS
from taichu.command_line.options import add_device, add_inputs, inputs, load_model


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    parser.add_argument("manifest", metavar="MANIFEST", help="where the candidates are")
    parser.add_argument("--into", required=True, choices=list(ADAPTERS), help="what is looked for")
    add_inputs(parser, repeatable=False)
    parser.add_argument("--top", type=int, default=5, help="how many are shown (default 5)")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="default test")
    parser.add_argument(
        "--cache", default="runs/cache", metavar="FOLDER", help="for read media (runs/cache)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_device(parser)
    parser.set_defaults(run=run, error=parser.error)


def run(options: argparse.Namespace):
    given = inputs(options)
    if not given:
        options.error("nothing to look for; give --text, --image, ...")
    if options.top < 1:
        options.error("--top must be at least 1")
    from taichu.data.prepared import prepare
    from taichu.inference.retrieval import Candidates, search

    model = load_model(options)
    query = model.embed(**given)
    data = prepare(options.manifest, options.split, model.config.modalities, options.cache)
    candidates = Candidates.of(model, data, options.into)
    numbers, scores = search(query[None], candidates.vectors, options.top)
    rows = []
    for number, score in zip(numbers[0], scores[0]):
        sample = candidates.samples[number]
        found = candidates.shown[number]
        rows.append({"id": sample.id, options.into: found, "cosine": round(float(score), 4)})
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(row["id"]) for row in rows)
    for place, row in enumerate(rows, start=1):
        print(f"{place:>3}  {row['cosine']:+.4f}  {row['id']:<{width}}  {row[options.into]}")
