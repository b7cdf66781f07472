"""Assembles the report: figures, curves and samples into one HTML file."""

import time
from datetime import datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

import taichu
from taichu.data.prepared import PreparedData
from taichu.inference.sampling import Sampling
from taichu.report.curves import curves
from taichu.report.floors import Floors
from taichu.report.gallery import generated_captions, generated_media, reconstructions
from taichu.report.pictures import Shown, show_grid
from taichu.report.tables import (
    MISSING,
    duration,
    flatten,
    is_number,
    missed,
    number,
    pretty,
    tables,
)
from taichu.report.wall import retrieval_wall
from taichu.training.log import read_log

TEMPLATE = "report.html.j2"


def write_report(
    path: Path | str,
    metrics: dict,
    model,
    data: PreparedData,
    logs: dict[str, Path],
    floors: Floors,
    media: Sampling,
    captions: Sampling,
    seed: int = 0,
    earlier: dict | None = None,
) -> Path:
    """Write one HTML file that holds all it shows and needs no network.

    Args:
        path: the .html file; it appears only when it is whole.
        metrics: what `taichu eval` measured; any part of it may be missing.
        model: a `taichu.Taichu`.
        data: the test split, prepared with the model's modalities.
        logs: title -> metrics.jsonl of a training; one that does not exist is left out.
        floors: what the figures are held against.
        media: how media are made from captions; each modality has a seed of its own.
        captions: how captions are made from media.
        seed: of the choice of what is shown.
        earlier: metrics of another run, shown beside; what it was stands in its "about".

    Returns:
        The path.
    """
    path = Path(path)

    def show(modality: str, grid: np.ndarray) -> Shown:
        return show_grid(model.adapters[modality], grid)

    def random(part: int) -> np.random.Generator:
        return np.random.default_rng((seed, part))

    started = time.monotonic()
    held = {name: rows for name, rows in data.rows.items() if (rows >= 0).any()}
    with_text, between_media = retrieval_wall(model, data, show, seed)
    page = {
        "version": taichu.__version__,
        "written": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "summary": summary(metrics, data, logs, earlier or {}),
        "below": missed(metrics, floors),
        "tables": tables(metrics, floors, earlier),
        "earlier": earlier and earlier.get("about", "an earlier run"),
        "figures": {name: number(value) for name, value in flatten(metrics).items()},
        "curves": {pretty(title): curves(log) for title, log in logs.items()},
        "untrained": [key for key in metrics.get("retrieval") or () if "text" not in key],
        "walls": [
            ("With text on one side", with_text),
            ("Between media", between_media),
        ],
        "candidates": media.candidates,
        "made": {
            name: generated_media(model, data, name, show, random(i), media)
            for i, name in enumerate(held)
        },
        "captions": generated_captions(model, data, show, random(100), captions),
        "codecs": {
            name: reconstructions(model, data, name, show, random(200 + i))
            for i, name in enumerate(held)
        },
        "skipped": data.skipped,
    }
    page["seconds"] = duration(time.monotonic() - started)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(pretty=pretty, drawing=Markup)
    html = environment.get_template(TEMPLATE).render(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def summary(
    metrics: dict, data: PreparedData, logs: dict[str, Path], earlier: dict
) -> list[tuple[str, str]]:
    """What stands at the top, as (name, value): size, time, trainings, speed, memory, data."""

    def with_earlier(key: str) -> str:
        value, was = (number(_total(held.get(key))) for held in (metrics, earlier))
        return value if was == MISSING else f"{value} (before {was})"

    seconds = flatten(metrics.get("seconds"))
    known = {stage: s for stage, s in seconds.items() if is_number(s)}
    total = known.get("total", sum(known.values())) if known else None
    stages = [
        f"{pretty(name)} {duration(s)}" for name, s in known.items() if name not in ("", "total")
    ]
    facts = [
        ("parameters", with_earlier("parameters")),
        ("time in all", duration(total) + (f": {', '.join(stages)}" if stages else "")),
        ("tokens a second", with_earlier("tokens_per_second")),
        ("peak memory, MB", with_earlier("peak_memory_mb")),
    ]
    files = {
        name: len({sample.media[name] for sample in data.samples if name in sample.media})
        for name in data.rows
    }
    counts = ", ".join(f"{count:,} {pretty(name)}" for name, count in files.items())
    facts.append(("test samples, files", f"{len(data.samples):,}: {counts}"))
    for title, log in logs.items():
        rows = read_log(log) if Path(log).is_file() else []
        rows = [row for row in rows if isinstance(row, dict) and "loss" in row]
        if rows:
            taken = duration(rows[-1].get("seconds"))
            facts.append((f"{pretty(title)}, steps", f"{number(rows[-1].get('step'))} in {taken}"))
    return facts


def _total(parameters):
    if not isinstance(parameters, dict):
        return parameters
    numbers = flatten(parameters)
    return numbers.get("total", sum(v for v in numbers.values() if is_number(v)))
