"""Prepared data: every media file read once through its adapter and kept as plain arrays.

Epochs after the first decode no media: the grids are memory-mapped safetensors files in a cache
folder, valid as long as the files and the adapters' settings stay the same.
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
from taichu.data.manifest import Sample, read_manifest
from taichu.data.mapped_tensor import create_mapped, open_mapped
from taichu.data.one_at_a_time import one_at_a_time
from taichu.errors import ManifestError
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


@dataclass
class Media:
    """The grids of files.

    Attributes:
        grids: modality -> (files, T, Y, X, C) float16, memory-mapped.
        rows: modality -> file -> its row of ``grids``.
        bad: why a file cannot be read, of those that cannot.
    """

    grids: dict[str, np.ndarray]
    rows: dict[str, dict[Path, int]]
    bad: dict[Path, str]

    def fault(self, paths) -> str | None:
        """Why the first of the files that cannot be read cannot; None where all can."""
        return next((self.bad[path] for path in paths if path in self.bad), None)


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
    files = {n: [s.media[n] for s in samples if n in s.media] for n in modalities}
    media = read_media(files, adapters, cache, split, workers)
    why = [media.fault(sample.media.values()) for sample in samples]
    skipped = problems + [f"{manifest}:{s.line}: {w}" for s, w in zip(samples, why) if w]
    used = [i for i, w in enumerate(why) if not w]
    if not used:
        reason = f"; {skipped[0]}" if skipped else ""
        raise ManifestError(f"{manifest}: no usable row with split {split!r}{reason}")
    rows = {}
    for name in adapters:
        row_of = media.rows[name]
        rows[name] = np.array([row_of.get(samples[i].media.get(name), -1) for i in used])
    return PreparedData([samples[i] for i in used], media.grids, rows, skipped)


def read_media(
    files: dict[str, list[Path]],
    adapters: dict,
    cache: Path | str,
    name: str = "media",
    workers: int = 2,
) -> Media:
    """Read files, or reuse the cache.

    Args:
        files: of each modality; one that comes again is read once.
        adapters: name -> adapter.
        cache: folder; each state of the files gets a folder of its own.
        name: what that folder's name begins with.
        workers: processes that read.
    """
    files = {modality: list(dict.fromkeys(files.get(modality, ()))) for modality in adapters}
    folder = Path(cache) / f"{name}-{_fingerprint(files, adapters)}"
    with one_at_a_time(cache):
        if not (folder / "done.json").is_file():
            _read_all(files, adapters, folder, workers)
    bad = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    return Media(
        {name: open_mapped(folder / f"{name}.safetensors", GRIDS) for name in adapters},
        {m: {path: row for row, path in enumerate(paths)} for m, paths in files.items()},
        {Path(path): reason for path, reason in bad.items()},
    )


def _fingerprint(files: dict[str, list[Path]], adapters) -> str:
    """Changes whenever the prepared grids would, or the form they are kept in."""
    settings = {name: adapter.settings() for name, adapter in adapters.items()}
    state = hashlib.sha256(b"safetensors by file" + json.dumps(settings).encode())
    for name in adapters:
        for path in files[name]:
            try:
                status = os.stat(path)
                stamp = f"{status.st_size}.{status.st_mtime_ns}"
            except OSError:
                stamp = "missing"
            state.update(f"{name}\0{path}\0{stamp}\0".encode(errors="surrogatepass"))
    return state.hexdigest()[:16]


def _read_all(files: dict[str, list[Path]], adapters, folder: Path, workers: int):
    """Read all files into ``folder``, which appears only when it is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bad: dict[str, str] = {}
    jobs = []
    for name, adapter in adapters.items():
        paths = files[name]
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
