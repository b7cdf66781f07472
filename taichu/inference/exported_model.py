"""Folders of exported graphs: what they say of themselves, and the models that they make."""

from pathlib import Path

from taichu.config import ModelConfig
from taichu.data.conversations.template import ChatTemplate, read_template, write_template
from taichu.errors import ExportError
from taichu.inference.unified_model import UnifiedModel
from taichu.storage.model_folder import (
    read_config,
    read_json,
    write_json,
    write_settings,
)
from taichu.tokenizer import Tokenizer, read_tokenizer

SETTINGS = "export.json"


def write_export(
    folder: Path,
    graphs: str,
    score_scale: float,
    config: ModelConfig,
    adapters: dict,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
):
    """Write what a folder holds beside its graphs.

    Args:
        graphs: their format.
        score_scale: of `UnifiedModel`.
    """
    write_settings(folder, config, adapters, tokenizer)
    if template:
        write_template(folder, template)
    write_json(folder / SETTINGS, {"format": graphs, "score_scale": score_scale})


def exported_format(folder: Path | str) -> str | None:
    """The format of a folder's graphs; None where nothing was exported there.

    Raises:
        CheckpointError: the folder's export.json is malformed.
    """
    path = Path(folder) / SETTINGS
    return str(read_json(path).get("format")) if path.is_file() else None


class ExportedModel(UnifiedModel):
    """What models of exported graphs have in common.

    Args:
        folder: that ``taichu export`` wrote.

    Attributes:
        graphs: the format that the class runs.

    Raises:
        ExportError: the folder holds graphs of another format.
        CheckpointError: a file is missing or malformed.
    """

    graphs: str

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        settings = read_json(self.folder / SETTINGS)
        if settings.get("format") != self.graphs:
            raise ExportError(f"{self.folder / SETTINGS}: format must be {self.graphs!r}")
        super().__init__(read_config(self.folder), read_tokenizer(self.folder))
        self._score_scale = float(settings["score_scale"])
        self.template = read_template(self.folder)

    @property
    def score_scale(self) -> float:
        return self._score_scale
