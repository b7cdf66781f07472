"""A folder that is there when all of it is written, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taichu.errors import ConfigError


@contextmanager
def new_folder(out: Path | str) -> Iterator[Path]:
    """Gives the folder to be filled, which takes its name at the end.

    Raises:
        ConfigError: there is something under that name, or left of an attempt that was killed.
    """
    out = Path(out).resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: is there already; name a new folder")
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        raise ConfigError(f"{partial}: is left of an earlier attempt; delete it")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial)
        raise
