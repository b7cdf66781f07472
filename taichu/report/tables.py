"""Metrics as tables: each figure with chance, a baseline and a floor beside it."""

import math
from dataclasses import dataclass

from taichu.report.floors import Floors

MISSING = "–"
# What each section of the metrics is called, the figure that is drawn as a bar, and what it means.
SECTIONS = {
    "zero_shot": (
        "Naming the digit",
        "accuracy",
        "Media are compared with a caption of each digit, in wording held out from training. The "
        "baseline is a logistic regression that was trained for just this.",
    ),
    "retrieval": (
        "Retrieval",
        "R@1",
        "R@1 and R@5: how often the nearest, or one of the five nearest, is right. With text, the "
        "whole caption must fit; between media never trained as a pair, the digit.",
    ),
    "captioning": (
        "Captions from media",
        "digit",
        "exact: everything the caption must say is said, in whatever words. The others: that "
        "detail alone is right.",
    ),
    "generation": (
        "Media from captions",
        "agreement",
        "agreement: an independent classifier, trained on real media, names the digit that was "
        "asked for. ceiling: the same for real media that only went through the codec; real: for "
        "real media as they are. centred: the classifier reads the digit cut out and centred. "
        "whole caption: of sounds that say attributes too.",
    ),
    "codec": ("Codecs", "", "How well codes give back real media, and how many of them are used."),
}
FIRST = ("accuracy", "R@1", "R@5", "exact", "digit", "agreement", "valid")
LAST = ("ceiling", "real", "baseline", "chance", "n")
MARKS = ("chance", "baseline", "ceiling")
GIVEN = ("real", "baseline", "chance", "chance_exact", "n")  # by the data, whatever was trained


@dataclass(frozen=True)
class Cell:
    """A figure as text; where it has a floor, that floor and whether it is reached; where an
    earlier run has it too, what it was there."""

    text: str
    floor: str = ""
    reached: bool | None = None
    earlier: str = ""


@dataclass(frozen=True)
class Bar:
    """The main figure of a row from 0 to 100, with marks (name, place) to compare it with."""

    value: float
    marks: list[tuple[str, float]]


@dataclass(frozen=True)
class Row:
    """One modality or one direction; ``bar`` is None where the main figure is missing."""

    name: str
    bar: Bar | None
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """One section of the metrics."""

    name: str
    title: str
    note: str
    columns: list[str]
    rows: list[Row]


def tables(metrics: dict, floors: Floors, earlier: dict | None = None) -> list[Table]:
    """A table for each section; one that the metrics lack has no rows.

    ``earlier`` are the metrics of another run, which stand beside.
    """
    earlier = earlier or {}
    return [_table(metrics.get(n), earlier.get(n), n, floors) for n in SECTIONS]


def missed(metrics: dict, floors: Floors) -> tuple[list[str], int]:
    """The figures below their floor, in words, and how many have a floor."""
    below, count = [], 0
    for section in SECTIONS:
        for name, entry in _entries(metrics.get(section)).items():
            for figure, value in flatten(entry).items():
                floor = floors.of(section, name, figure)
                if floor is None or not is_number(value):
                    continue
                count += 1
                if value < floor:
                    title = SECTIONS[section][0].lower()
                    numbers = f"{number(value)} of {number(floor)}"
                    below.append(f"{title}, {pretty(name)}, {figure}: {numbers}")
    return below, count


def flatten(value, name: str = "") -> dict[str, object]:
    """Nested dicts and lists as one, with dotted names."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value}
    flat = {}
    for key, part in parts:
        flat.update(flatten(part, f"{name}.{key}" if name else str(key)))
    return flat


def number(value) -> str:
    """A figure as text: three decimals below 10, fewer above, thousands apart; else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        size = abs(value)
        if 0 < size < 0.001:
            return f"{value:.1e}"
        return f"{value:,.{3 if size < 10 else 1 if size < 1000 else 0}f}"
    return str(value)


def duration(seconds) -> str:
    """Seconds in words: "8.4 s", "3 min 12 s", "1 h 02 min"."""
    if not is_number(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min"


def is_number(value) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def pretty(name: str) -> str:
    """A key as it is read: arrows and plus signs with space around them, 3D shapes in words."""
    name = name.replace("->", " → ").replace("+", " + ").replace("_", " ").replace(".", " · ")
    return name.replace("shape3d", "3D shape")


def _entries(section) -> dict[str, dict]:
    """Rows of a section; figures of a part ("audio", "whole_caption") are a row of their own."""
    rows = {}
    for name, entry in section.items() if isinstance(section, dict) else ():
        entry = entry if isinstance(entry, dict) else {"value": entry}
        parts = {f"{name}.{key}": part for key, part in entry.items() if isinstance(part, dict)}
        rows[str(name)] = {k: v for k, v in entry.items() if not isinstance(v, dict)}
        rows |= parts
    return rows


def _table(section, earlier, name: str, floors: Floors) -> Table:
    title, main, note = SECTIONS[name]
    entries = {row: flatten(entry) for row, entry in _entries(section).items()}
    before = {row: flatten(entry) for row, entry in _entries(earlier).items()}
    columns = list(dict.fromkeys(key for entry in entries.values() for key in entry))
    columns.sort(key=_rank)
    rows = []
    for row, entry in entries.items():
        old = {key: was for key, was in before.get(row, {}).items() if key not in GIVEN}
        cells = [_cell(entry.get(k), floors.of(name, row, k), old.get(k)) for k in columns]
        marks = {key: entry.get(key) for key in MARKS} | {"floor": floors.of(name, row, main)}
        rows.append(Row(pretty(row), _bar(entry.get(main), marks), cells))
    return Table(name, title, note, [pretty(key) for key in columns], rows)


def _rank(key: str) -> int:
    if key in FIRST:
        return FIRST.index(key)
    return 100 + (LAST.index(key) if key in LAST else -1)


def _cell(value, floor: float | None, was) -> Cell:
    earlier = number(float(was)) if is_number(was) else ""
    if floor is None or not is_number(value):
        return Cell(number(value), "" if floor is None else number(floor), None, earlier)
    return Cell(number(float(value)), number(floor), value >= floor, earlier)


def _bar(value, marks: dict) -> Bar | None:
    if not is_number(value):
        return None
    shown = [(n, 100 * min(max(m, 0), 1)) for n, m in marks.items() if is_number(m)]
    return Bar(100 * min(max(value, 0), 1), shown)
