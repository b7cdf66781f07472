"""What every adapter asks of the file system: a file worth opening, and a write that is whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modality_adapters.errors import MediaError


def require_suffix(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """The path, if its suffix is among `suffixes` (any case); MediaError naming them otherwise."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        found = f"'{path.suffix}'" if path.suffix else "no suffix"
        raise MediaError(path, f"has {found}; supported are {', '.join(suffixes)}")
    return path


def require_file(path: str | Path, suffixes: tuple[str, ...], max_bytes: int | None = None) -> Path:
    """The path, if a file is there that is not empty, of a supported kind and not too large.

    Raises MediaError otherwise; nothing of the file is read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(path, "is a folder, not a file")
        require_suffix(path, suffixes)
        if not path.is_file():
            reason = "is not an ordinary file" if path.exists() else "no such file"
            raise MediaError(path, reason)
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # no permission; a name with a null byte
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, f"cannot be opened: {error}") from error
    if size == 0:
        raise MediaError(path, "is empty")
    if max_bytes is not None and size > max_bytes:
        raise MediaError(path, f"has {size:,} bytes, more than the limit of {max_bytes:,}")
    return path


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a media library raises inside the block into a MediaError.

    The libraries raise nearly any exception on damaged files, hence the broad clause; keep the
    block to calls into them, so that no error of ours hides behind it.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        raise MediaError(path, f"cannot be decoded: {text.replace(str(path), 'file')}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix beside `path`, which becomes `path` when the block ends.

    A reader never sees half a file; after an error nothing is left behind.
    """
    if not path.parent.is_dir():
        raise MediaError(path, "cannot be written: its folder does not exist")
    try:
        handle, name = tempfile.mkstemp(
            suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent
        )
    except OSError as error:
        raise MediaError(path, f"cannot be written: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
