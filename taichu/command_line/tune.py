"""Tune a model on your own data: what the data are decides how.

DATA is a manifest or conversations, in any format that `taichu data check` reads. By it the recipe
is chosen: tune_lora for a manifest, tune_new_modality for one with a modality that the model has
not, tune_chat for conversations, tune_preference for pairs of a chosen and a rejected answer. The
rank follows from how much there is to learn, the learning rate from the model's width, the batch
from the memory that is free. The choice is printed as YAML, with its reasons, and kept in
OUT/tune.yaml, which `taichu train` runs again; key=value changes any of it.

OUT/adapter is a PEFT folder, OUT/model an ordinary model where the method can be merged.

examples:
  taichu tune runs/demo/model my/conversations.jsonl runs/mine
  taichu tune runs/demo/model my/manifest.jsonl runs/mine method.name=dora train.steps=1000
  taichu tune runs/demo/model data/digits/depth.jsonl runs/depth --dry-run"""

import argparse
from pathlib import Path

import yaml

from taichu.config import apply_overrides


def add_options(parser: argparse.ArgumentParser):
    parser.add_argument("folder", metavar="FOLDER", help="the model folder that is tuned")
    parser.add_argument("data", metavar="DATA", help="a manifest or conversations")
    parser.add_argument("out", metavar="OUT", help="a new folder; one that was stopped goes on")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the choice")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="to plan for (default: the free)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the choice, and stop")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, Ascend, GPU or CPU")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    from taichu.command_line.train import load_recipe
    from taichu.training.hang_watch import show_stacks_when_asked

    show_stacks_when_asked()
    path = Path(options.out) / "tune.yaml"
    if path.is_file() and not options.overrides and not options.dry_run:
        print(f"{path}: goes on with the choice that was made", flush=True)
    else:
        chosen = choose(options)
        print(chosen, end="", flush=True)
        if options.dry_run:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(chosen, encoding="utf-8")
    program, config = load_recipe(str(path), [])
    made = program.main(config)
    print(f"settings: {path}", f"made: {made}", sep="\n")
    if made.name == "adapter":
        merge_where_possible(config, made)


def merge_where_possible(config, adapter: Path):
    """Write the model with its adapter, or say why there is none."""
    from taichu.inference.adapters import merge
    from taichu.tuning.methods import METHODS

    name = config.method["name"]
    if METHODS[name].mergeable:
        print(f"merged: {merge(config.start, adapter, adapter.with_name('model'))}")
    else:
        print(f"not merged: {name} stands beside the weights; taichu.inference.adapters loads it")


def choose(options: argparse.Namespace) -> str:
    """The recipe's settings as YAML, the reasons before them.

    Raises:
        TuningError: nothing of the data can be learned, or memory is short.
        ConversationError, ManifestError: the data cannot be read.
    """
    from ascend.device import choose_device
    from ascend.memory import free_memory
    from ascend.operators.form import device_form
    from ascend.precision import choose_precision
    from taichu.command_line.train import find_yaml
    from taichu.config import load_yaml
    from taichu.plan import tuning
    from taichu.plan.tuning_data import look_at

    device = choose_device(options.device).reason
    precision = choose_precision().split()[1]
    base = tuning.Base(options.folder)
    of_new = load_yaml(find_yaml("tune_new_modality"))
    cache = apply_overrides({"cache": "runs/cache"}, options.overrides)["cache"]
    data = look_at(options.data, base, of_new, cache)
    content = load_yaml(find_yaml(data.recipe))
    rank = tuning.choose_rank(base.config, data.lengths)
    trained = tuning.lora_parameters(base.config, rank)
    free = int(options.memory * 1e9) if options.memory else free_memory()
    flash = device_form() != "plain"
    batch = tuning.choose_batch(base, data.lengths, trained, free, precision, flash)
    reasons = [
        device,
        data.reason,
        f"{data.lengths}: recipe {data.recipe}",
        f"a step takes about {batch.bytes / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free",
    ]
    changes = {"start": options.folder, "out": options.out, "device": options.device}
    changes |= data.settings
    rows = {"rows": batch.rows, "length": batch.length}
    changes[data.packed_by] = {**changes.get(data.packed_by, {}), **rows}
    changes["train"] = {"accumulate": batch.accumulate, "recompute": batch.recompute}
    if "method" in content:
        name = apply_overrides({}, options.overrides).get("method", {}).get("name", "lora")
        settings = {"rank": rank, "alpha": 2 * rank} if name in ("lora", "dora") else {}
        content["method"] = {"name": name, **settings}
        rate = float(f"{data.rate * tuning.choose_rate(base.config):.2g}")
        changes["train"] |= {"steps": tuning.choose_steps(data.lengths, batch), "rate": rate}
        reasons.append(f"LoRA of rank {rank} has {trained:,} parameters")
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = {**content[key], **value} if inner else value
    content = apply_overrides(content, options.overrides)
    said = "".join(f"# {reason}\n" for reason in reasons)
    return said + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
