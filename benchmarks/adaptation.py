"""What each tuning method makes of a shift that the demo's model has not seen.

    taichu demo
    taichu data build digits_tuning data/digits
    python benchmarks/adaptation.py

The shift: negatives of pictures of another handwriting collection (optdigits instead of MNIST,
colours inverted; captions name the colours as they were). Each method trains on the same 1,400
pictures by recipes/tune_lora, in a process of its own; what is measured is its adapter, loaded onto
the model: the digit named by embeddings (mean of English and Chinese), and captions, on test
pictures of other handwritings. Every method trains the pictures' embedder fully beside it, since
paper that is white instead of black is far from all that the blocks have seen; "embedder" trains
that alone, "all" every parameter.

Learning rates were chosen without the test split: `--search METHOD` tries `RATES` on a fifth of the
training pictures, trained on the others. LoRA's kin have LoRA's; LoRA+, whose B learns 16 times as
fast, a tenth of it.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from harness import machine, use_threads

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
EMBEDDER = "patch_embedders.0"
REST = ["blocks", "table", "head", "norm", "projection", "log_scale", "patch_embedders.[1-3]"]
# what is called so -> the method's settings, and its learning rate
METHODS = {
    "LoRA": ({"name": "lora", "rank": 4}, 3e-3),
    "rsLoRA": ({"name": "lora", "rank": 4, "rank_stabilised": True}, 3e-3),
    "LoRA+": ({"name": "lora", "rank": 4, "rate_ratio": 16}, 3e-4),
    "DoRA": ({"name": "dora", "rank": 4}, 3e-3),
    "AdaLoRA": ({"name": "adalora", "initial_rank": 4, "target_rank": 3}, 1e-2),
    "(IA)3": ({"name": "ia3"}, 1e-2),
    "prefix tuning": ({"name": "prefix"}, 1e-2),
    "P-tuning v2": ({"name": "p_tuning_v2"}, 1e-2),
    "prompt tuning": ({"name": "prompt"}, 1e-2),
    "bottleneck": ({"name": "bottleneck", "width": 16}, 3e-3),
    "Compacter": ({"name": "compacter"}, 1e-2),
    "BitFit": ({"name": "bitfit"}, 3e-3),
    "embedder": ({"name": "freeze", "frozen": REST}, 3e-3),
    "all": ({"name": "freeze"}, 3e-3),
}


@dataclass(frozen=True)
class Figures:
    """Of a model on the shift: shares, and what its training took."""

    digit: float
    caption_digit: float
    caption: float
    share: float = 0.0
    seconds: float = 0.0
    megabytes: float = 0.0

    def __str__(self):
        cost = f"{self.share:7.2%}{self.seconds:10.0f}{self.megabytes:12,.0f}"
        shares = self.digit, self.caption_digit, self.caption
        return "".join(f"{share:8.3f}" for share in shares) + (cost if self.share else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="runs/demo/model", help="the demo's (runs/demo/model)")
    parser.add_argument("--data", default="data/digits", help="the digits (data/digits)")
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help="not all")
    parser.add_argument("--search", choices=METHODS, metavar="METHOD", help="try learning rates")
    parser.add_argument("--steps", type=int, default=1600, help="of each training (1600)")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    use_threads()
    if chosen.alone:
        print(json.dumps(asdict(alone(**json.loads(chosen.alone)))))
        return
    manifest = Path(chosen.data).resolve() / "negatives.jsonl"
    common = {"start": str(Path(chosen.model).resolve()), "manifest": str(manifest)}
    common["steps"] = chosen.steps
    print(f"{machine()}; {chosen.steps} steps")
    print(f"{'':<16}   digit  caption's   caption\n{'':<16}              digit", end="")
    print("             trained   seconds   MB at most")
    table = {}
    with tempfile.TemporaryDirectory() as place:
        common["cache"] = f"{place}/cache"
        if chosen.search:
            common["manifest"] = hold_out(manifest, Path(place))
            ways = {str(r): {"method": METHODS[chosen.search][0], "rate": r} for r in RATES}
        else:
            names = chosen.only or METHODS
            ways = {"before": {}}
            ways |= {n: {"method": METHODS[n][0], "rate": METHODS[n][1]} for n in names}
        for name, way in ways.items():
            table[name] = in_a_process({**common, **way, "out": f"{place}/{len(table)}"})
            print(f"{name:<16}{table[name]}", flush=True)
    if chosen.json:
        content = {"machine": machine(), "steps": chosen.steps}
        content["table"] = {name: asdict(figures) for name, figures in table.items()}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def hold_out(manifest: Path, place: Path) -> str:
    """A manifest of the training split alone, in which every fifth row is for test."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    for number in np.random.default_rng(0).permutation(len(rows))[: len(rows) // 5]:
        rows[number]["split"] = "test"
    shutil.copytree(manifest.parent / "negatives", place / "negatives")
    path = place / "held_out.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def in_a_process(what: dict) -> Figures:
    command = [sys.executable, __file__, "--alone", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def alone(
    start: str, manifest: str, cache: str, out: str, steps: int, method=None, rate=0.0
) -> Figures:
    """Tune and measure, in this process; without a method, measure."""
    from taichu import Taichu
    from taichu.inference.adapters import Adapters
    from taichu.storage.checkpoint import named_parameters
    from taichu.storage.tensor_file import load_tensors
    from taichu.training.log import read_log

    if method is None:
        return measure(Taichu.from_pretrained(start), manifest, cache)
    adapter = tune(start, manifest, cache, out, steps, method, rate)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = read_log(Path(out) / "training/backbone/metrics.jsonl")[-2]["seconds"]
    model = Taichu.from_pretrained(start)
    total = sum(parameter.size for parameter in named_parameters(model.backbone).values())
    kept = sum(
        tensor.size for tensor in load_tensors(adapter / "adapter_model.safetensors")[0].values()
    )
    Adapters(model).add(adapter, "tuned")
    figures = measure(model, manifest, cache)
    cost = {"share": kept / total, "seconds": seconds, "megabytes": megabytes}
    return Figures(**{**asdict(figures), **cost})


def tune(start, manifest, cache, out, steps: int, method: dict, rate: float) -> Path:
    """Train by the recipe; returns the adapter's folder."""
    from recipes import tune_lora
    from taichu.command_line.train import load_recipe

    given = {"start": start, "manifest": manifest, "cache": cache, "out": out}
    given |= {"train.steps": steps, "train.rate": rate, "train.validate_every": 0}
    given |= {"mixture.groups": {"text-image": 1}, "mixture.rows": 12, "mixture.augment": 0.4}
    beside = [] if method["name"] == "freeze" else [EMBEDDER]
    given |= {"validation_batches": 1, "method": {**method, "modules_to_save": beside}}
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    return tune_lora.main(load_recipe("tune_lora", overrides)[1])


def measure(model, manifest: str, cache: str) -> Figures:
    """On the test split."""
    from taichu.data.digits.captions import known
    from taichu.data.prepared import prepare
    from taichu.evaluation import EvaluationConfig
    from taichu.evaluation.captioning import score
    from taichu.evaluation.zero_shot import class_of
    from taichu.inference.generation import generate

    data = prepare(manifest, "test", model.config.modalities, cache)
    wanted = [known(sample.labels, "image") for sample in data.samples]
    contents = [{"image": data.grids["image"][row]} for row in data.rows["image"]]
    vectors, digits = model.embed_many(contents), np.array([want["digit"] for want in wanted])
    named = [(class_of(model, "image", way, vectors) == digits).mean() for way in ("en", "zh")]
    made = generate(model, "text", contents, EvaluationConfig().captions)
    scores = score([one.text for one in made], wanted)
    return Figures(float(np.mean(named)), scores["digit"], scores["exact"])


if __name__ == "__main__":
    main()
