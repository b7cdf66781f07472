"""From a manifest to entries of an index, a part at a time."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from taichu.data.manifest import Sample, read_manifest
from taichu.data.prepared import PreparedData, prepare
from taichu.errors import IndexFolderError
from taichu.index.index import Index
from taichu.vocabulary import TEXT

CHUNK = 512  # rows whose grids are in memory at a time
SAVED = 300  # seconds until what is done is saved


@dataclass
class Filled:
    """What became of a manifest.

    Attributes:
        added: entries that are new. known: entries that were there already.
        skipped: one line for each row that was left out, with the reason.
    """

    added: int
    known: int
    skipped: list[str]


def fill(
    index: Index,
    folder: Path | str,
    model,
    manifest: Path | str,
    split: str,
    modalities: list[str] | None,
    cache: Path | str,
) -> Filled:
    """Embed every text and file of a manifest, each alone, and save the index; it is saved every
    few minutes, and where it is interrupted or fails, too.

    Args:
        index: gets the entries.
        folder: of the index.
        model: a `UnifiedModel`.
        manifest: the .jsonl file.
        split: "train", "test" or "all".
        modalities: that are indexed; None: all.
        cache: folder for prepared grids.

    Raises:
        ManifestError: the manifest is malformed, or no row can be read.
        IndexFolderError: a modality that the model lacks.
    """
    known = (TEXT, *model.adapters)
    for name in modalities or ():
        if name not in known:
            raise IndexFolderError(f"the model has no modality {name!r}; it has {', '.join(known)}")
    settings = model.config.modalities
    splits = [split]
    if split == "all":
        splits = sorted({sample.split for sample in read_manifest(manifest, settings, [])})
        splits = splits or ["train"]
    parts = [prepare(manifest, name, settings, cache) for name in splits]
    skipped = list(dict.fromkeys(line for part in parts for line in part.skipped))
    filled, saved = Filled(0, 0, skipped), time.monotonic()
    total = sum(len(part.samples) for part in parts)
    try:
        with tqdm(total=total, desc="embedding", unit="row") as bar:
            for part in parts:
                for start in range(0, len(part.samples), CHUNK):
                    rows = range(start, min(start + CHUNK, len(part.samples)))
                    for name in modalities or known:
                        _add(index, model, part, rows, name, filled)
                    bar.update(len(rows))
                    if time.monotonic() - saved > SAVED:
                        index.save(folder)
                        saved = time.monotonic()
    finally:
        index.save(folder)
    return filled


def _add(index: Index, model, data: PreparedData, rows: range, modality: str, filled: Filled):
    """Add what some rows hold of a modality."""
    entries, contents = [], []
    for row in rows:
        sample = data.samples[row]
        for shown in _shown(sample, modality):
            if index.holds(modality, sample.id, shown):
                filled.known += 1
                continue
            entries.append((sample.id, shown))
            contents.append(shown if modality == TEXT else data.rows[modality][row])
    if not entries:
        return
    if modality != TEXT:
        contents = data.grids[modality][contents]
    vectors = model.embed_many([{modality: content} for content in contents])
    filled.added += index.add(modality, entries, vectors)


def _shown(sample: Sample, modality: str) -> list[str]:
    """The texts of a row, each once, or the path of its file, which does not depend on where the
    command is given."""
    if modality == TEXT:
        return list(dict.fromkeys(text for _, text in sample.texts))
    return [os.path.abspath(sample.media[modality])] if modality in sample.media else []
