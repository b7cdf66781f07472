"""Find what of an index is nearest to text and media files, by cosine of their embeddings.

Modalities given together form one query, embedded together; with --weights each is embedded alone,
and the query is the weighted sum of their unit vectors. An index is what `taichu index build` made.
A small collection needs none: a model's folder and a manifest search all texts, or all files of one
modality, of a split of it.

examples:
  taichu retrieve found --text "a red seven" --top 5
  taichu retrieve found --image q.png --audio q.wav --weights image=1,audio=0.5 --into video
  taichu retrieve found --into text --image q.png --top 3 --json
  taichu retrieve runs/demo/model my/manifest.jsonl --into image --text "a red seven\""""

import argparse
import json
import math

from modality_adapters import ADAPTERS
from taichu.command_line.options import add_device, add_inputs, inputs, load_model, load_model_of


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="an index; or a model, before a MANIFEST")
    parser.add_argument("manifest", nargs="?", metavar="MANIFEST", help="where candidates are")
    parser.add_argument(
        "--into", choices=list(ADAPTERS), help="what is looked for (of an index: default all)"
    )
    add_inputs(parser, repeatable=False)
    parser.add_argument(
        "--weights",
        type=weights,
        metavar="A=X,B=Y",
        help="sum what is given with these weights, as text=0.3,image=1",
    )
    parser.add_argument("--top", type=int, default=5, help="how many are shown (default 5)")
    parser.add_argument("--model", metavar="FOLDER", help="where the index's model is now")
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="of MANIFEST (default test)"
    )
    parser.add_argument(
        "--cache", default="runs/cache", metavar="FOLDER", help="for read media (runs/cache)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_device(parser)
    parser.set_defaults(run=run, error=parser.error)


def weights(text: str) -> dict[str, float]:
    """ "text=0.3,image=1" -> {"text": 0.3, "image": 1.0}."""
    found = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in ADAPTERS or name in found or not math.isfinite(number):
            raise argparse.ArgumentTypeError(f"{part!r} must be MODALITY=NUMBER, each once")
        found[name] = number
    return found


def run(options: argparse.Namespace):
    given = inputs(options)
    if not given:
        options.error("nothing to look for; give --text, --image, ...")
    if options.top < 1:
        options.error("--top must be at least 1")
    if options.weights and set(options.weights) != set(given):
        options.error(f"--weights must be of what is given: {', '.join(given)}")
    if options.manifest and not options.into:
        options.error("--into is needed: what of the MANIFEST is looked for")
    if options.manifest and options.model:
        options.error("--model goes with an index; here FOLDER is the model")
    found = search_manifest(options, given) if options.manifest else search_index(options, given)
    if options.json:
        rows = [{"id": n, modality: s, "cosine": round(c, 4)} for n, modality, s, c in found]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max((len(name) for name, *_ in found), default=0)
    for place, (name, modality, shown, cosine) in enumerate(found, start=1):
        print(f"{place:>3}  {cosine:+.4f}  {name:<{width}}  {modality:<7}  {shown}")


def search_index(options: argparse.Namespace, given: dict) -> list[tuple]:
    """(id, modality, text or path, cosine) of what an index holds, best first."""
    from taichu.index import Index
    from taichu.inference.retrieval import embed_query

    index = Index.open(options.folder)
    query = embed_query(load_model_of(index, options), given, options.weights)
    (found,) = index.search(query[None], options.top, options.into)
    return [(f.id, f.modality, f.shown, f.cosine) for f in found]


def search_manifest(options: argparse.Namespace, given: dict) -> list[tuple]:
    """The same of a split of a manifest, by exact search."""
    from taichu.data.prepared import prepare
    from taichu.inference.retrieval import Candidates, embed_query, search

    model = load_model(options)
    query = embed_query(model, given, options.weights)
    data = prepare(options.manifest, options.split, model.config.modalities, options.cache)
    candidates = Candidates.of(model, data, options.into)
    numbers, cosines = search(query[None], candidates.vectors, options.top)
    return [
        (candidates.samples[n].id, options.into, candidates.shown[n], float(cosine))
        for n, cosine in zip(numbers[0], cosines[0])
    ]
