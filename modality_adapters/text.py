"""Text: UTF-8 .txt files <-> strings."""

from dataclasses import dataclass
from pathlib import Path

from modality_adapters.errors import MediaError
from modality_adapters.files import replacing, require_file, require_suffix


@dataclass(frozen=True)
class TextAdapter:
    """Reads text of any language, in UTF-8; cutting it into pieces is the vocabulary's work.

    Args:
        max_bytes: larger files are refused before they are read.
    """

    name = "text"
    suffixes = (".txt",)

    max_bytes: int = 1_000_000

    def __post_init__(self):
        if type(self.max_bytes) is not int or self.max_bytes <= 0:
            raise ValueError(f"text: max_bytes must be a positive integer: {self.max_bytes!r}")

    def read(self, source: str | Path) -> str:
        """A string as it is; the content of the file at a Path, without its byte order mark.

        Raises MediaError for a file that is missing, empty, too large or not UTF-8.
        """
        if isinstance(source, str):
            return source
        path = require_file(source, self.suffixes, self.max_bytes)
        data = path.read_bytes()
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MediaError(
                path, f"is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
            ) from error

    def write(self, text: str, path: str | Path) -> Path:
        """Write a string as UTF-8, whole or not at all."""
        path = require_suffix(path, self.suffixes)
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
        return path

    def settings(self) -> dict:
        """The settings; `create_adapter("text", settings)` gives an equal adapter."""
        return {"max_bytes": self.max_bytes}


ADAPTER = TextAdapter
