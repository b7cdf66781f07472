"""Measure a model on the test split of a manifest, with chance and a baseline beside each figure.

Prints metrics as JSON, or writes them with --out. Figures by digit and by attribute need rows with
`labels`, as the digits data set has them. --recipe says which groups the model was trained on, and
so which pairs never were; key=value changes that recipe's keys.

Of conversations, in any format that `taichu data check` reads, the answers are counted that are
those of the data. Questions are asked one after the other, after the model's own answers.

examples:
  taichu eval runs/demo/model data/digits/manifest.jsonl
  taichu eval runs/demo/model data/digits/manifest.jsonl --out metrics.json
  taichu eval runs/mine/model my/manifest.jsonl --recipe my/recipe.yaml
  taichu eval runs/talking data/digits/conversations_test.jsonl"""

import argparse
import json
from pathlib import Path

from taichu.command_line.options import add_device, load_model
from taichu.command_line.train import load_recipe
from taichu.errors import ConfigError, TaichuError


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="a model folder")
    parser.add_argument("manifest", metavar="MANIFEST", help="with a test split; or conversations")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as evaluation.KEY=3")
    parser.add_argument("--recipe", default="demo", help="what it was trained by (default demo)")
    parser.add_argument("--out", metavar="FILE.json", help="write the metrics instead of printing")
    parser.add_argument(
        "--cache", default="runs/cache", metavar="FOLDER", help="for read media (runs/cache)"
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    if options.out and not Path(options.out).parent.is_dir():
        raise TaichuError(f"{options.out}: its folder does not exist")
    from taichu.data.conversations.reading import detect_format

    figures = measure if detect_format(options.manifest)[0] == "manifest" else count_answers
    metrics = figures(load_model(options), options)
    if not options.out:
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
        return
    from taichu.storage.model_folder import write_json

    write_json(Path(options.out), metrics)
    print(options.out)


def measure(model, options: argparse.Namespace) -> dict:
    """Every figure, of a manifest."""
    from taichu.evaluation import EvaluationConfig, evaluate

    _, recipe = load_recipe(options.recipe, options.overrides)
    if not hasattr(recipe, "mixture"):
        raise ConfigError(f"{options.recipe}: a recipe without mixture trains no backbone")
    settings = getattr(recipe, "evaluation", None) or EvaluationConfig()
    return evaluate(model, options.manifest, options.cache, recipe.mixture.groups, settings)


def count_answers(model, options: argparse.Namespace) -> dict:
    """Right answers, of conversations."""
    from taichu.data.conversations.reading import read_conversations
    from taichu.evaluation.answers import answers
    from taichu.inference.sampling import Sampling

    conversations = read_conversations(options.manifest, model.config.modalities)
    return answers(model, conversations, Sampling(temperature=0))
