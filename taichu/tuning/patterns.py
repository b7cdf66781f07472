"""Patterns of paths, as tuning methods name what they are about."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from taichu.config import nearest
from taichu.errors import TuningError


def matches(path: str, pattern: str) -> bool:
    """Whether a path is named: all of it, or its end from a dot on; ``*`` stands for anything.

    ``query`` names ``blocks.0.attention.query``, and so does ``attention.*``.
    """
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}")


def select(patterns: Iterable[str], paths: Iterable[str], what: str) -> list[str]:
    """The paths that patterns name, in their order.

    Raises:
        TuningError: a pattern names none; ``what`` says of what.
    """
    paths, patterns = list(paths), list(patterns)
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            ends = sorted({part for path in paths for part in path.split(".")})
            raise TuningError(f"{what}: {pattern!r} names nothing{nearest(pattern, ends)}")
    return [path for path in paths if any(matches(path, pattern) for pattern in patterns)]


def select_parameters(patterns: Iterable[str], names: Iterable[str], what: str) -> list[str]:
    """The parameters that patterns name, by their own path or that of a Cell around them.

    Raises:
        TuningError: see `select`.
    """
    names = list(names)
    around = {}
    for name in names:
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            around.setdefault(".".join(parts[:n]), []).append(name)
    chosen = {name for path in select(patterns, around, what) for name in around[path]}
    return [name for name in names if name in chosen]
