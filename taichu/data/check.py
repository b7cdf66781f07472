"""Checks data: every row is parsed, every file read through its adapter, nothing kept."""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from modality_adapters import create_adapter
from modality_adapters.errors import MediaError
from taichu.data.conversations.reading import (
    PREFERENCE,
    detect_format,
    read_conversations,
    read_preferences,
)
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
    rows = [(f"{manifest}:{sample.line}", list(sample.media.items())) for sample in samples]
    return _check(manifest, rows, problems, modalities, workers, progress)


def check_conversations(
    path: Path,
    modalities: dict[str, dict],
    format: str | None = None,
    folder: Path | None = None,
    workers: int = 2,
    progress: bool = True,
) -> tuple[int, list[str]]:
    """The same of a file of conversations or preferences.

    Args:
        format, folder: see `taichu.data.conversations.reading.read_conversations`.

    Raises:
        ConversationError: the file itself cannot be read.
    """
    problems: list[str] = []
    format = format or detect_format(path)[0]
    if format == PREFERENCE:
        read = read_preferences(path, modalities, folder, problems)
    else:
        read = read_conversations(path, modalities, format, folder, problems=problems)
    rows = [(conversation.place, conversation.media) for conversation in read]
    return _check(path, rows, problems, modalities, workers, progress)


def _check(
    path: Path,
    rows: list[tuple[str, list[tuple[str, Path]]]],
    problems: list[str],
    modalities: dict[str, dict],
    workers: int,
    progress: bool,
) -> tuple[int, list[str]]:
    """Read the media of well-formed rows, (place, media); the others are the problems so far."""
    places: dict[tuple[str, Path], dict[str, None]] = {}  # what several rows name is read once
    for place, media in rows:
        for medium in media:
            places.setdefault(medium, {})[place] = None
    jobs = []
    for name, settings in modalities.items():
        files = [file for modality, file in places if modality == name]
        for start in range(0, len(files), CHUNK):
            jobs.append((name, settings, files[start : start + CHUNK]))
    found, bad = list(problems), set()
    # spawned, not forked: the caller may run threads of MindSpore or OpenCV
    context = multiprocessing.get_context("spawn")
    bar = tqdm(total=len(places), desc="checking", unit="file", disable=not progress)
    with bar, ProcessPoolExecutor(min(workers, max(1, len(jobs))), context) as pool:
        for (name, _, files), failures in zip(jobs, pool.map(_read_chunk, jobs)):
            for file, error in failures:
                for place in places[name, file]:
                    found.append(f"{place}: {name}: {error}")
                    bad.add(place)
            bar.update(len(files))
    good = {place for place, _ in rows} - bad
    return len(good), sorted(found, key=lambda problem: (_number(problem, path), problem))


def _number(problem: str, path: Path) -> int:
    """Of the line or entry, in "FILE:LINE: ..." or "FILE: entry N: ..."."""
    return int(re.search(r"\d+", problem[len(str(path)) :])[0])


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
