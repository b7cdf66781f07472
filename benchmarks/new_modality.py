"""Measures what a model knows of a modality that `tune_new_modality` gives it, before and after.

    python benchmarks/new_modality.py --json new_modality.json

Takes the model that `taichu demo` leaves and the digits with `taichu data build digits_tuning`;
trains by the recipe where that has not been done. Needs `pip install "taichu[train,demo]"`.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from harness import machine, options, use_threads

NEW = "depth"
FEW = 200  # items of a modality that are captioned, made, or compared with what they were


def main():
    parser = options(__doc__, runs=1)
    parser.add_argument("--start", default="runs/demo/model", help="the model before")
    parser.add_argument("--data", type=Path, default=Path("data/digits"), help="the digits")
    parser.add_argument("--out", type=Path, default=Path("runs/tune_new_modality"))
    parser.add_argument("--cache", default="runs/cache")
    chosen = parser.parse_args()
    use_threads()
    from taichu import Taichu
    from taichu.command_line import main as taichu
    from taichu.data.prepared import prepare

    depths = chosen.data / f"{NEW}.jsonl"
    if not (chosen.out / "model").is_dir():
        paths = {"start": chosen.start, "manifest": depths, "out": chosen.out}
        settings = [f"{key}={value}" for key, value in paths.items()]
        if taichu(["train", "tune_new_modality", *settings, f"cache={chosen.cache}"]):
            raise SystemExit("the training failed")
    models = {
        name: Taichu.from_pretrained(path)
        for name, path in (
            ("known", chosen.start),
            ("before", chosen.out / "start"),
            ("after", chosen.out / "model"),
        )
    }
    modalities = models["after"].config.modalities
    train, test = (prepare(depths, split, modalities, chosen.cache) for split in ("train", "test"))
    digits = prepare(chosen.data / "manifest.jsonl", "test", modalities, chosen.cache)
    found = {}
    for name in ("before", "after"):
        found[name] = figures(models[name], train, test, digits)
        found[name] |= changes(models["known"], models[name], digits)
    print(f"{machine()}\n\n| | before | after |\n|---|---:|---:|")
    for key, value in found["after"].items():
        print(f"| {key} | {found['before'][key]:.4g} | {value:.4g} |")
    if chosen.json:
        content = {"machine": machine(), "figures": found, "adapter": modalities[NEW]}
        content["codec"] = asdict(models["after"].config.codecs[NEW])
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def figures(model, train, test, digits) -> dict[str, float]:
    """Of the test's depth maps: zero-shot digits (held-out prompts, both languages) and captions;
    of depth maps made from captions the digit, by a judge; and how often the nearest item of
    another modality, which it was never trained with, shows the same digit."""
    from taichu.data.digits.captions import TEST_TEMPLATES, known
    from taichu.evaluation import EvaluationConfig
    from taichu.evaluation.captioning import score
    from taichu.evaluation.judge import Judge, distinct
    from taichu.evaluation.retrieval import recall
    from taichu.evaluation.zero_shot import class_of
    from taichu.inference.generation import generate

    grids, settings = test.grids[NEW][test.rows[NEW]], EvaluationConfig()
    labels = [sample.labels for sample in test.samples]
    shown = np.array([label["digit"] for label in labels])
    seen = train.grids[NEW][train.rows[NEW]]
    judge = Judge(seen, np.array([s.labels["digit"] for s in train.samples]), centred=False)
    vectors = model.embed_many([{NEW: grid} for grid in grids])
    made = {"items": len(shown), "logistic regression": float((judge(grids) == shown).mean())}
    for language in TEST_TEMPLATES:
        named = class_of(model, NEW, language, vectors)
        made[f"zero-shot digit, {language}"] = float((named == shown).mean())

    few = np.sort(np.random.default_rng(0).permutation(len(shown))[:FEW])
    written = generate(model, "text", [{NEW: grids[i]} for i in few], settings.captions)
    read = score([g.text for g in written], [known(labels[i], labels[i]["caption"]) for i in few])
    made |= {f"caption, {key}": read[key] for key in ("digit", "exact", "chance_exact")}
    captions = [{"text": test.samples[i].captions(0)[0][1]} for i in few]
    drawn = generate(model, NEW, captions, settings.media)
    made["made from a caption, digit"] = float(
        (judge(np.stack([g.grid for g in drawn])) == shown[few]).mean()
    )
    for other in [name for name in model.adapters if name != NEW]:
        samples, rows = distinct(digits, other)
        theirs = model.embed_many([{other: digits.grids[other][row]} for row in rows])
        same = shown[:, None] == np.array([digits.samples[i].labels["digit"] for i in samples])
        made[f"depth -> {other}, R@1"] = recall(vectors @ theirs.T, same)["R@1"]
    return made


def changes(known, model, digits) -> dict[str, float]:
    """The largest difference between numbers of the embeddings of what was known."""
    from taichu.evaluation.judge import distinct

    found = {}
    for name in known.adapters:
        rows = distinct(digits, name)[1][:FEW]
        contents = [{name: digits.grids[name][row]} for row in rows]
        found[name] = np.abs(known.embed_many(contents) - model.embed_many(contents)).max()
    texts = [{"text": text} for s in digits.samples[:FEW] for _, text in s.texts]
    found["text"] = np.abs(known.embed_many(texts) - model.embed_many(texts)).max()
    return {f"change of {name}'s embeddings": float(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
