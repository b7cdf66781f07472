"""Prepared data: every grid of a manifest read once through its adapter and kept as plain arrays.

Epochs after the first decode no media: the grids are memory-mapped safetensors files in a cache
folder, valid as long as the manifest, the media files and the adapters' settings stay the same.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from modality_adapters import create_adapter
from modality_adapters.errors import MediaError
from modality_adapters.grid import widen
from taichu.errors import ManifestError
from taichu.data.manifest import Sample, read_manifest
from taichu.data.mapped_tensor import create_mapped, open_mapped
from taichu.data.one_at_a_time import one_at_a_time
from taichu.vocabulary import TEXT

CHUNK = 64  # files a worker reads at a time
GRIDS = "grids"  # the tensor in each modality's file


@dataclass
class PreparedData:
    """One split of a manifest.

    Attributes:
        samples: the usable rows.
        grids: modality -> (n, T, Y, X, C) float16, memory-mapped.
        rows: modality -> (samples,) int64, the sample's row of ``grids``, -1 where it has none.
        skipped: one line for each row that was left out, with the reason.
    """

    samples: list[Sample]
    grids: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    skipped: list[str]

    def having(self, modalities) -> np.ndarray:
        """Numbers of the samples that hold all these modalities."""
        held = np.ones(len(self.samples), bool)
        for modality in modalities:
            if modality == TEXT:
                held &= np.array([bool(sample.texts) for sample in self.samples])
            else:
                held &= self.rows[modality] >= 0
        return np.flatnonzero(held)

    def captions(self, number: int = 0) -> np.ndarray:
        """(samples,) int: equal for samples whose captions of this number (`Sample.captions`) share
        a text, directly or through others."""
        node: dict[str, int] = {}
        edges = [
            (i, node.setdefault(text, len(node)))
            for i, sample in enumerate(self.samples)
            for _, text in sample.captions(number)
        ]
        n = len(self.samples)
        if not edges:
            return np.arange(n)
        row, column = np.array(edges).T
        size = n + len(node)
        graph = coo_array((np.ones(len(row)), (row, n + column)), shape=(size, size))
        return connected_components(graph, directed=False)[1][:n]


def spread(grids: np.ndarray, most: int = 512) -> np.ndarray:
    """At most so many of the grids (n, T, Y, X, C), evenly spaced, as float32: enough for their
    mean and deviation."""
    step = max(1, -(-len(grids) // most))
    return widen(grids[::step])


def prepare(
    manifest: Path | str,
    split: str,
    modalities: dict[str, dict],
    cache: Path | str,
    workers: int = 2,
) -> PreparedData:
    """Read one split of a manifest, or reuse the cache.

    Args:
        manifest: the .jsonl file.
        split: "train" or "test".
        modalities: name -> adapter settings.
        cache: folder for prepared grids; each state of the data gets a folder of its own.
        workers: processes that read media.

    Raises:
        ManifestError: the manifest is malformed, or no row of the split can be read.
    """
    problems: list[str] = []
    samples = [s for s in read_manifest(manifest, modalities, problems) if s.split == split]
    adapters = {name: create_adapter(name, settings) for name, settings in modalities.items()}
    folder = Path(cache) / f"{split}-{_fingerprint(manifest, samples, adapters)}"
    with one_at_a_time(cache):
        if not (folder / "done.json").is_file():
            _read_all(samples, adapters, folder, workers)
    bad = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    why = [next((bad[str(p)] for p in s.media.values() if str(p) in bad), None) for s in samples]
    skipped = problems + [f"{manifest}:{s.line}: {w}" for s, w in zip(samples, why) if w]
    used = [i for i, w in enumerate(why) if not w]
    if not used:
        reason = f"; {skipped[0]}" if skipped else ""
        raise ManifestError(f"{manifest}: no usable row with split {split!r}{reason}")
    grids, rows = {}, {}
    for name in adapters:
        grids[name] = open_mapped(folder / f"{name}.safetensors", GRIDS)
        row_of = {path: row for row, path in enumerate(_files(samples, name))}
        rows[name] = np.array([row_of.get(samples[i].media.get(name), -1) for i in used])
    return PreparedData([samples[i] for i in used], grids, rows, skipped)


def _fingerprint(manifest, samples: list[Sample], adapters) -> str:
    """Changes whenever the prepared grids would, or the form they are kept in."""
    state = hashlib.sha256(b"safetensors" + Path(manifest).read_bytes())
    state.update(
        json.dumps({n: a.settings() for n, a in adapters.items()}, sort_keys=True).encode()
    )
    for sample in samples:
        for path in sample.media.values():
            try:
                status = os.stat(path)
                state.update(f"{status.st_size}.{status.st_mtime_ns};".encode())
            except OSError:
                state.update(b"missing;")
    return state.hexdigest()[:16]


def _files(samples: list[Sample], modality: str) -> list[Path]:
    """Files of a modality in the order of the rows, each once however many rows name it."""
    return list(dict.fromkeys(s.media[modality] for s in samples if modality in s.media))


def _read_all(samples: list[Sample], adapters, folder: Path, workers: int):
    """Read all media into ``folder``, which appears only when it is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bad: dict[str, str] = {}
    jobs = []
    for name, adapter in adapters.items():
        paths = _files(samples, name)
        shape = (len(paths), *adapter.geometry.shape)
        create_mapped(partial / f"{name}.safetensors", GRIDS, shape)
        for start in range(0, len(paths), CHUNK):
            jobs.append((name, adapter.settings(), paths[start : start + CHUNK], start, partial))
    bar = tqdm(total=sum(len(job[2]) for job in jobs), desc="reading media", unit="file")
    with ProcessPoolExecutor(workers) as pool, bar:
        for failures, count in pool.map(_read_chunk, jobs):
            bad.update(failures)
            bar.update(count)
    (partial / "done.json").write_text(json.dumps(bad), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _read_chunk(job) -> tuple[dict[str, str], int]:
    name, settings, paths, start, folder = job
    adapter = create_adapter(name, settings)
    # a chunk's own rows only: two processes never write the same bytes
    grids = open_mapped(folder / f"{name}.safetensors", GRIDS, writable=True)
    failures = {}
    for i, path in enumerate(paths, start=start):
        try:
            grids[i] = adapter.read(path)
        except MediaError as error:
            failures[str(path)] = str(error)
    grids.flush()
    return failures, len(paths)
