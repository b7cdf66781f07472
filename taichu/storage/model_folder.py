"""The files of a model folder that hold no tensors: settings, adapters' settings, tokenizer."""

import dataclasses
import json
from pathlib import Path

import taichu
from modality_adapters import create_adapter
from taichu.config import ModelConfig, build, load_size
from taichu.errors import CheckpointError, ConfigError
from taichu.tokenizer import FORMS, Tokenizer

MOST_BYTES = 1 << 26  # of a file of settings; an index of the largest published models has a tenth


def write_settings(folder: Path, config: ModelConfig, adapters: dict, tokenizer: Tokenizer):
    """Write config.json, preprocessor_config.json and the tokenizer's file."""
    folder.mkdir(parents=True, exist_ok=True)
    for form in FORMS:  # another one's would be taken for this one's
        (folder / form.file).unlink(missing_ok=True)
    (folder / tokenizer.file).write_bytes(tokenizer.content)
    content = dataclasses.asdict(config)
    del content["modalities"]
    versions = {"model_type": "taichu", "taichu_version": taichu.__version__}
    write_json(folder / "config.json", {**versions, **content})
    modalities = {name: adapter.settings() for name, adapter in adapters.items()}
    write_json(folder / "preprocessor_config.json", {"modalities": modalities})


def read_config(folder: Path) -> ModelConfig:
    """The settings of a model folder.

    Raises:
        CheckpointError: a file is missing or malformed.
    """
    path = folder / "config.json"
    content = {**read_json(path), **read_json(folder / "preprocessor_config.json")}
    if content.pop("model_type", None) != "taichu":
        how = "of a published model `taichu convert --from-hf` makes a folder"
        raise CheckpointError(f"{path}: model_type is not 'taichu'; {how}")
    content.pop("taichu_version", None)
    try:
        config = build(ModelConfig, content, str(path))
        create_adapters(config)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return config


def read_size(name: str) -> ModelConfig:
    """The settings of a model folder, or of a size; see `taichu.config.load_size`.

    Raises:
        CheckpointError: a file of the folder is missing or malformed. ConfigError: no such size.
    """
    return read_config(Path(name)) if Path(name, "config.json").is_file() else load_size(name)


def create_adapters(config: ModelConfig) -> dict:
    """The adapters of a model, in its order.

    Raises:
        ConfigError: a wrong name or setting.
    """
    try:
        return {name: create_adapter(name, s) for name, s in config.modalities.items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"modalities: {error}") from None


def grids_of(adapters: dict) -> dict[str, tuple[int, int]]:
    """(tokens, patch size) of each grid modality, in order."""
    geometries = {name: adapter.geometry for name, adapter in adapters.items()}
    return {name: (g.tokens, g.patch_size) for name, g in geometries.items()}


def codec_settings(config: ModelConfig, name: str) -> dict:
    """What a modality's codec is made for, as its file notes it."""
    modality = create_adapter(name, config.modalities[name]).settings()
    settings = {"codec": dataclasses.asdict(config.codecs[name]), "modality": modality}
    return json.loads(json.dumps(settings))  # as it will be read back: lists, not tuples


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckpointError: missing or malformed.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path}: larger than {MOST_BYTES >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def write_json(path: Path, content: dict):
    """Write a JSON object, readable, atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
