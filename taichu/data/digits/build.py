"""Builds the digits data set: ordinary media files and a manifest.jsonl, from pip packages alone.

Rows of the manifest, in both splits:

- a picture, a clip or a solid with a caption that names the digit and every attribute of it; in a
  third of these rows `audio` is espeak-ng saying such a caption, in English or Mandarin;
- a human utterance of a digit, with text that names it;
- for nine of ten such utterances, the same file beside one to three of {image, video, shape3d} of
  the same digit: files of the rows above, only weakly related: other hands, other sources. These
  rows have no text, since it would not name the attributes, but for those that hold all five;
- a digit's name said by espeak-ng, and as text.

In training, texts that name attributes are followed by one that names the digit alone.

The test split shares with the training split no handwriting, no utterance, no synthetic voice and
no template of the text. Some combinations of digit and attributes never occur in training (see
`is_held_out`); all test pictures and clips are such combinations, of the test solids one in ten.
Human voices are not held out: FSDD's file does not say who speaks. What speech says is worded
alike in both splits.

`labels` of a row: `digit`, `caption` (what the text is about: "image", "video", "shape3d" or
"digit"), and for each medium its attributes, whether their combination is `held_out`, and its
`source`, e.g. {"colour": "red", "place": "centre", "held_out": false, "source": "mnist:12"}; for
audio `kind` ("human" or "synthetic"), `language`, `source` and, if synthetic, what was said
(`text`) and how (`speed`, `pitch`). Synthetic speech says what `caption` names.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from taichu.data.digits import captions, render, solids, sources, speech

VERSION = 3  # changes whenever the same settings would give other bytes
MARKER = "finished.json"
SUFFIXES = {"image": ".png", "video": ".mp4", "shape3d": ".glb", "audio": ".wav"}
JOB = 128  # items of one job; fixed, since espeak's state runs through a job


@dataclass(frozen=True)
class Counts:
    """Rows of one split, by what they hold."""

    image: int
    video: int
    shape3d: int
    human: int  # human utterances
    names: int  # digit names said by espeak


TRAIN = Counts(image=3000, video=2400, shape3d=2400, human=2400, names=300)
TEST = Counts(image=750, video=600, shape3d=720, human=600, names=100)


def build_digits(
    out: Path | str,
    seed: int = 0,
    train: Counts = TRAIN,
    test: Counts = TEST,
    processes: int = 2,
    progress: bool = True,
) -> Path:
    """Write the data set into the folder `out` and return the path of its manifest.

    The same settings give the same bytes whatever `processes` is. A finished folder with these
    settings is left as it is. The folder appears under its name only when it is complete.
    Raises FileExistsError if `out` holds anything else, ModuleNotFoundError without the packages
    of the `demo` extra.
    """
    out = Path(out)
    settings = {"version": VERSION, "seed": seed, "train": asdict(train), "test": asdict(test)}
    if _is_finished(out, settings):
        return out / "manifest.jsonl"
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for split, medium in product(("train", "test"), SUFFIXES):
        (partial / split / medium).mkdir(parents=True)
    rows, items = _plan(seed, train, test)
    _write_media(partial, seed, items, processes, progress)
    with open(partial / "manifest.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (partial / MARKER).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()
    os.rename(partial, out)
    return out / "manifest.jsonl"


def is_held_out(subject: str, digit: int, first: str, second: str) -> bool:
    """Whether digit and attribute values (in the order of captions.ATTRIBUTES) are for test only.

    With the positions a, b of the two values in their lists: image (digit + a + b) % 5 == 0, video
    (digit + a + b) % 4 == 0, shape3d digit == 3 (2 a + b). Any value occurs with any digit in
    training. Solids have four combinations only: holding one out for every digit would teach "what
    is thin and leaning is no seven", so it is done for the digits 0, 3, 6 and 9.
    """
    names = captions.ATTRIBUTES[subject]
    a, b = (
        list(captions.VALUES[name]).index(value)
        for name, value in zip(names, (first, second), strict=True)
    )
    if subject == "shape3d":
        return digit == 3 * (2 * a + b)
    return (digit + a + b) % {"image": 5, "video": 4}[subject] == 0


def _is_finished(out: Path, settings: dict) -> bool:
    if not out.exists() or not any(out.iterdir()):
        return False
    marker = out / MARKER
    if not marker.is_file():
        raise FileExistsError(f"{out}: holds other files; name a new or an empty folder")
    if json.loads(marker.read_text(encoding="utf-8")) != settings:
        raise FileExistsError(f"{out}: holds digits of other settings; delete it or name another")
    return True


# --- what there will be ---------------------------------------------------------------------------


def _plan(seed: int, train: Counts, test: Counts) -> tuple[list[dict], list[dict]]:
    """The rows of the manifest and the media files (items) to be written for them."""
    random = np.random.default_rng([seed, 0])
    shares = _shares(random)
    rows, items = [], []
    for split, counts in (("train", train), ("test", test)):
        for row in _split_rows(split, counts, shares[split], random):
            for medium in SUFFIXES.keys() & row.keys():
                items.append((row[medium], medium, row["labels"]["digit"], row["labels"][medium]))
            rows.append(row)
    # A file that several rows name is written once.
    return rows, [item for _, item in sorted({item[0]: item for item in items}.items())]


def _shares(random: np.random.Generator) -> dict:
    """split -> medium -> digit -> indices of the recordings that this medium may use there."""
    labels = {name: _recordings(name)[1] for name in ("mnist", "optdigits", "fsdd")}
    shares = {split: {} for split in ("train", "test")}
    for digit in range(10):
        written, solid, spoken = (
            random.permutation(np.flatnonzero(labels[name] == digit)).tolist()
            for name in ("mnist", "optdigits", "fsdd")
        )
        fifth = len(solid) // 5
        parts = {
            "train": {"image": written[:300], "video": written[375:475]},
            "test": {"image": written[300:375], "video": written[475:]},
        }
        parts["train"] |= {"shape3d": solid[fifth:], "human": spoken[60:]}
        parts["test"] |= {"shape3d": solid[:fifth], "human": spoken[:60]}
        for split, media in parts.items():
            for medium, indices in media.items():
                shares[split].setdefault(medium, []).append(indices)
    return shares


def _split_rows(
    split: str, counts: Counts, share: dict, random: np.random.Generator
) -> Iterator[dict]:
    """The rows of one split, digits in turn."""
    media: dict = {}  # (medium, digit) -> [(path, labels)], for the rows of human speech
    for medium, origin in (("image", "mnist"), ("video", "mnist"), ("shape3d", "optdigits")):
        for index in range(getattr(counts, medium)):
            digit, turn = index % 10, index // 10
            recordings = share[medium][digit]
            about = {
                **draw_attributes(split, medium, digit, random),
                "source": f"{origin}:{recordings[turn % len(recordings)]}",
            }
            row = _row(split, medium, index, {"digit": digit, "caption": medium, medium: about})
            row[medium] = f"{split}/{medium}/{index:05d}{SUFFIXES[medium]}"
            row["text"] = draw_texts(split, row["labels"], random)
            if random.random() < 1 / 3:
                _add_synthetic(row, split, f"{medium}-{index:05d}", random)
            media.setdefault((medium, digit), []).append((row[medium], about))
            yield row
    for index in range(counts.human):
        digit, turn = index % 10, index // 10
        recordings = share["human"][digit]
        about = {
            "kind": "human",
            "language": "en",
            "source": f"fsdd:{recordings[turn % len(recordings)]}",
        }
        labels = {"digit": digit, "caption": "digit", "audio": about}
        row = _row(split, "human", index, labels)
        row["audio"] = f"{split}/audio/human-{index:05d}.wav"
        row["text"] = draw_texts(split, labels, random)
        yield row
        beside = random.permutation([medium for medium, of in media if of == digit])
        beside = beside[: random.choice(4, p=(0.1, 0.45, 0.35, 0.1))].tolist()
        if not beside:
            continue
        weak = _row(split, "weak", index, {**labels}) | {"audio": row["audio"]}
        if len(beside) == 3:
            weak["text"] = row["text"]
        for medium in beside:
            files = media[medium, digit]
            weak[medium], weak["labels"][medium] = files[random.integers(len(files))]
        yield weak
    for index in range(counts.names):
        row = _row(split, "name", index, {"digit": index % 10, "caption": "digit"})
        row["text"] = draw_texts(split, row["labels"], random)
        _add_synthetic(row, split, f"name-{index:05d}", random)
        yield row


def _row(split: str, kind: str, index: int, labels: dict) -> dict:
    return {"id": f"{split}-{kind}-{index:05d}", "split": split, "labels": labels}


def draw_attributes(split: str, subject: str, digit: int, random: np.random.Generator) -> dict:
    """A combination of attribute values that this split may use with this digit."""
    names = captions.ATTRIBUTES[subject]
    allowed = [
        (values, held_out)
        for values in product(*(captions.VALUES[name] for name in names))
        if (held_out := is_held_out(subject, digit, *values)) == (split == "test")
        or (split == "test" and subject == "shape3d")
    ]
    values, held_out = allowed[random.integers(len(allowed))]
    return {**dict(zip(names, values, strict=True)), "held_out": held_out}


def draw_texts(split: str, labels: dict, random: np.random.Generator) -> dict[str, list[str]]:
    """Captions in each language, from templates of the split: the whole one first."""
    templates = captions.TRAIN_TEMPLATES if split == "train" else captions.TEST_TEMPLATES
    subjects = [labels["caption"]]
    if split == "train" and subjects != ["digit"]:
        subjects.append("digit")
    return {
        language: [
            captions.caption(labels, subject, language, _one_of(of[subject], random))
            for subject in subjects
        ]
        for language, of in templates.items()
    }


def _add_synthetic(row: dict, split: str, name: str, random: np.random.Generator) -> None:
    """Give a row speech that says its whole caption."""
    labels = row["labels"]
    language = _one_of(tuple(captions.DIGITS), random)
    speakers = speech.TRAIN_SPEAKERS if split == "train" else speech.TEST_SPEAKERS
    voice = f"{_one_of(speech.ACCENTS[language], random)}+{_one_of(speakers, random)}"
    template = _one_of(captions.SPOKEN_TEMPLATES[language][labels["caption"]], random)
    row["audio"] = f"{split}/audio/{name}.wav"
    labels["audio"] = {
        "kind": "synthetic",
        "language": language,
        "source": f"espeak:{voice}",
        "text": captions.caption(labels, labels["caption"], language, template),
        "speed": int(random.integers(165, 230)),
        "pitch": int(random.integers(35, 66)),
    }


def _one_of(choices: tuple, random: np.random.Generator):
    return choices[random.integers(len(choices))]


# --- writing the files ----------------------------------------------------------------------------


def _write_media(
    folder: Path, seed: int, items: list[tuple], processes: int, progress: bool
) -> None:
    """Write every item (path, medium, digit, labels), in jobs of one medium each."""
    jobs = []
    for medium in ("human", "synthetic", "shape3d", "video", "image"):
        of_medium = [item for item in items if item[3].get("kind", item[1]) == medium]
        for start in range(0, len(of_medium), JOB):
            jobs.append((folder, seed, len(jobs), of_medium[start : start + JOB]))
    from threadpoolctl import threadpool_limits

    with tqdm(total=len(items), desc="digits", unit="file", disable=not progress) as bar:
        if processes == 1:
            # as the others do: sums over several threads round otherwise
            with threadpool_limits(1):
                for job in jobs:
                    bar.update(_write_job(*job))
            return
        # Spawned, not forked: the caller may run threads of MindSpore or OpenCV.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=use_one_thread) as pool:
            try:
                for done in as_completed([pool.submit(_write_job, *job) for job in jobs]):
                    bar.update(done.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def use_one_thread() -> None:
    """The processes share the cores: no library starts threads of its own."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1)


def _write_job(folder: Path, seed: int, number: int, items: list[tuple]) -> int:
    """Write the items of one job; how many there were."""
    espeak = None
    for index, (relative, medium, _, labels) in enumerate(items):
        path = folder / relative
        origin, _, recording = labels["source"].partition(":")
        random = np.random.default_rng([seed, 1, number, index])
        if origin == "espeak":
            espeak = espeak or speech.Espeak(seed=number + 1)
            said = (labels["text"], recording, labels["speed"], labels["pitch"])
            speech.write_wave(espeak.say(*said), path)
            continue
        source = _recordings(origin)[0][int(recording)]
        values = [labels[name] for name in captions.ATTRIBUTES.get(medium, ())]
        if medium == "audio":
            speech.write_wave(speech.wave_of_mfcc(source, random), path)
        elif medium == "image":
            render.write_picture(render.picture(source, *values), path)
        elif medium == "video":
            render.write_clip(render.clip(source, *values, random), path)
        else:
            solids.write_solid(solids.solid(source, *values, random), path)
    return len(items)


@cache
def _recordings(name: str):
    """Recordings and labels of "mnist", "optdigits" or "fsdd", read once a process."""
    readers = {
        "mnist": sources.mnist,
        "optdigits": sources.optdigits,
        "fsdd": sources.spoken_digits,
    }
    return readers[name]()
