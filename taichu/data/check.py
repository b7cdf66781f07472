"""Checks a manifest: every row is parsed, every file read through its adapter, nothing kept."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from modality_adapters import create_adapter
from modality_adapters.errors import MediaError
from taichu.data.manifest import read_manifest

CHUNK = 32  # files a worker reads at a time


def check_manifest(
    manifest: Path, modalities: dict[str, dict], workers: int = 2, progress: bool = True
) -> tuple[int, list[str]]:
    """Read everything that training would read.

    Args:
        manifest: the .jsonl file.
        modalities: name -> adapter settings.
        workers: processes that read media.
        progress: show a bar on stderr.

    Returns:
        How many rows are good, and what is wrong, "FILE:LINE: ...", in the order of the lines.

    Raises:
        ManifestError: the manifest itself cannot be read.
    """
    problems: list[str] = []
    samples = read_manifest(manifest, modalities, problems)
    lines: dict[tuple[str, Path], list[int]] = {}  # a file that several rows name is read once
    for sample in samples:
        for name, path in sample.media.items():
            lines.setdefault((name, path), []).append(sample.line)
    jobs = []
    for name, settings in modalities.items():
        paths = [path for modality, path in lines if modality == name]
        for start in range(0, len(paths), CHUNK):
            jobs.append((name, settings, paths[start : start + CHUNK]))
    found = [(_line(problem, manifest), problem) for problem in problems]
    bad = set()
    # spawned, not forked: the caller may run threads of MindSpore or OpenCV
    context = multiprocessing.get_context("spawn")
    bar = tqdm(total=len(lines), desc="checking", unit="file", disable=not progress)
    with bar, ProcessPoolExecutor(min(workers, max(1, len(jobs))), context) as pool:
        for (name, _, paths), failures in zip(jobs, pool.map(_read_chunk, jobs)):
            for path, error in failures:
                for line in lines[name, path]:
                    found.append((line, f"{manifest}:{line}: {name}: {error}"))
                    bad.add(line)
            bar.update(len(paths))
    return len(samples) - len(bad), [problem for _, problem in sorted(found)]


def _line(problem: str, manifest: Path) -> int:
    """The number in "FILE:LINE: ..."."""
    return int(problem.removeprefix(f"{manifest}:").partition(":")[0])


def _read_chunk(job) -> list[tuple[Path, str]]:
    name, settings, paths = job
    adapter = create_adapter(name, settings)
    failures = []
    for path in paths:
        try:
            adapter.read(path)
        except MediaError as error:
            failures.append((path, str(error)))
    return failures
