"""What tuning is shown on, made of a digits folder and put beside its manifest.jsonl:

- negatives.jsonl, a manifest: pictures of another handwriting collection than the pictures' own
  (optdigits, that of the solids), their colours inverted; captions name the colours as they were;
- depth.jsonl, a manifest: depth maps of the solids, a modality that the digits do not have;
- conversations_train.jsonl, conversations_test.jsonl: questions about every medium;
- preferences_train.jsonl, preferences_test.jsonl: the caption of each, and a false one.

The splits are the manifest's own: what is a test's handwriting, utterance or combination of
attributes there is one here.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import trimesh
from tqdm import tqdm

from taichu.data.digits import depth_map, questions, render, sources
from taichu.data.digits.build import (
    MARKER,
    SUFFIXES,
    draw_attributes,
    draw_texts,
    use_one_thread,
)
from taichu.errors import ManifestError

VERSION = 1  # changes whenever the same digits would give other bytes
DONE = "tuning.json"


def build_tuning(
    folder: Path | str, seed: int = 0, processes: int = 2, progress: bool = True
) -> list[Path]:
    """Write all of it into a finished folder of `build_digits`; returns the files' paths.

    The same settings give the same bytes. What is finished is left as it is.

    Raises:
        ManifestError: the folder is no digits folder. FileExistsError: it holds this of other
            settings. ModuleNotFoundError: packages of the `demo` extra are missing.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise ManifestError(f"{folder}: no digits folder; `taichu data build digits` makes one")
    settings = {"version": VERSION, "seed": seed}
    files = [folder / f"{name}.jsonl" for name in ("negatives", "depth")]
    for what in ("conversations", "preferences"):
        files += [folder / f"{what}_{split}.jsonl" for split in ("train", "test")]
    if (folder / DONE).is_file():
        if json.loads((folder / DONE).read_text(encoding="utf-8")) != settings:
            raise FileExistsError(f"{folder}: holds this of other settings; delete {DONE}")
        return files
    with open(folder / "manifest.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for name in ("negatives", "depth"):
        for split in ("train", "test"):
            (folder / name / split).mkdir(parents=True, exist_ok=True)

    # each part draws for itself: one may change without the others
    _write(files[0], _negatives(folder, rows, np.random.default_rng([seed, 2])))
    depths = list(_depths(rows))
    _write_depth_maps(folder, depths, processes, progress)
    _write(files[1], (row for _, row in depths))
    for part, (make, written) in enumerate(
        ((questions.conversation, files[2:4]), (questions.preference, files[4:6])), start=3
    ):
        for split, file in zip(("train", "test"), written):
            random = np.random.default_rng([seed, part, split == "test"])
            _write(file, (make(*about, random) for about in _media(rows, split)))
    _write(folder / DONE, [settings])
    return files


def _negatives(folder: Path, rows: list[dict], random: np.random.Generator) -> Iterator[dict]:
    """A picture of each handwriting that the solids are of."""
    seen, inks = set(), sources.optdigits()[0]
    for row in rows:
        source = row["labels"].get("shape3d", {}).get("source")
        if source is None or source in seen:
            continue
        seen.add(source)
        split, digit = row["split"], row["labels"]["digit"]
        about = {**draw_attributes(split, "image", digit, random), "source": source}
        labels = {"digit": digit, "caption": "image", "image": about}
        ink = cv2.resize(inks[int(source.partition(":")[2])], (20, 20), None, 0, 0, cv2.INTER_CUBIC)
        handwriting = np.pad(np.rint(255 * ink.clip(0, 1)).astype(np.uint8), 4)
        path = f"negatives/{split}/{len(seen):05d}.png"
        pixels = render.picture(handwriting, about["colour"], about["place"])
        render.write_picture(255 - pixels, folder / path)
        text = draw_texts(split, labels, random)
        name = f"{split}-negative-{len(seen):05d}"
        yield {"id": name, "split": split, "labels": labels, "image": path, "text": text}


def _depths(rows: list[dict]) -> Iterator[tuple[str, dict]]:
    """(file of a solid, row of its depth map)."""
    for row in rows:
        if row["labels"]["caption"] == "shape3d":
            solid = Path(row["shape3d"])
            labels = {name: row["labels"][name] for name in ("digit", "caption", "shape3d")}
            path = f"depth/{row['split']}/{solid.stem}.png"
            name = row["id"].replace("shape3d", "depth")
            split, text = row["split"], row["text"]
            made = {"id": name, "split": split, "labels": labels, "depth": path, "text": text}
            yield str(solid), made


def _write_depth_maps(folder: Path, depths: list, processes: int, progress: bool):
    jobs = [(solid, row["depth"]) for solid, row in depths]
    with (
        # spawned, not forked: the caller may run threads of MindSpore or OpenCV
        ProcessPoolExecutor(processes, get_context("spawn"), initializer=use_one_thread) as pool,
        tqdm(total=len(jobs), desc="depth maps", unit="file", disable=not progress) as bar,
    ):
        for _ in pool.map(partial(_write_depth_map, folder), jobs, chunksize=64):
            bar.update()


def _write_depth_map(folder: Path, job: tuple[str, str]):
    solid, path = job
    mesh = trimesh.load(folder / solid, force="mesh")
    depth_map.write_depth_map(depth_map.depth_map(mesh), folder / path)


def _media(rows: list[dict], split: str) -> Iterator[tuple[dict, str, str]]:
    """(labels, medium, file) of each file, once."""
    seen = set()
    for row in rows:
        for medium in SUFFIXES:
            if row["split"] == split and medium in row and row[medium] not in seen:
                seen.add(row[medium])
                yield row["labels"], medium, row[medium]


def _write(path: Path, rows):
    """JSON lines, under the file's name when all are there."""
    unfinished = path.with_name(f"{path.name}.partial")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    unfinished.replace(path)
