"""The language part of a taichu folder as the published form that it was converted from: the same
names, shapes and kinds of numbers, its config.json and its tokenizer."""

import shutil
from pathlib import Path

from taichu.config import ModelConfig
from taichu.convert.families import backbone_settings
from taichu.convert.names import HEAD, NEW, TABLE, language_tensors
from taichu.convert.new_folder import new_folder
from taichu.convert.sharded_tensors import SINGLE
from taichu.errors import CheckpointError
from taichu.storage.float_kinds import RAW
from taichu.storage.model_folder import read_config, write_json
from taichu.storage.tensor_stream import StoredTensor, Streamed, check_stream, write_stream
from taichu.tokenizer import find_tokenizer


def convert_to_hf(folder: Path | str, out: Path | str) -> Path:
    """Write the published form of a folder that `convert_from_hf` wrote, trained since or not.

    Numbers that training has changed are rounded to the published kind.

    Args:
        folder: the taichu folder.
        out: a new folder: config.json, model.safetensors and the tokenizer.

    Raises:
        CheckpointError: the folder was not converted, or a file of it is missing, damaged or does
            not fit the others; or a number is too large for the published kind.
        ConfigError: ``out`` is no new folder.
        DiskFullError: there is no room for it.
    """
    folder = Path(folder)
    path, config = folder / "model.safetensors", read_config(folder)
    _check_config(config, folder / "config.json")
    published, tensors = config.published, check_stream(path)
    made = {}
    for name, ours, shape in language_tensors(config):
        kind = published.other_kinds.get(name, published.kind)
        made[name] = Streamed(kind, shape, _reader(tensors, ours, shape, path))
    if published.head_copied:
        made[HEAD] = made[TABLE]
    for name in tensors:
        if not name.startswith(NEW):
            raise CheckpointError(f"{path}: tensor {name!r} is not part of this model")
    with new_folder(out) as partial:
        try:
            write_stream(partial / SINGLE, made, {"format": "pt"})
        except OverflowError as error:
            raise CheckpointError(f"{path}: {error}") from None
        write_json(partial / "config.json", published.config)
        tokenizer = find_tokenizer(folder)
        shutil.copyfile(tokenizer, partial / tokenizer.name)
    return Path(out)


def _check_config(config: ModelConfig, where: Path):
    """That the folder's settings are those of the published config that it carries."""
    if config.published is None:
        raise CheckpointError(f"{where}: published is missing: this model was not converted")
    kinds = {config.published.kind, *config.published.other_kinds.values()}
    for kind in kinds - set(RAW):
        raise CheckpointError(f"{where}: published has kind {kind!r}; known are {', '.join(RAW)}")
    for key, value in backbone_settings(config.published.config, where).items():
        if getattr(config, key) != value:
            raise CheckpointError(
                f"{where}: {key} is {getattr(config, key)!r}, of the published model {value!r}"
            )


def _reader(tensors: dict[str, StoredTensor], name: str, shape: tuple[int, ...], path: Path):
    """Reads one of our tensors in a published shape, and takes it out of the rest."""
    if name not in tensors:
        raise CheckpointError(f"{path}: tensor {name!r} is missing")
    tensor = tensors.pop(name)
    table = name.endswith(".own")  # whose further rows are not published
    rows = tensor.shape[:1] >= shape[:1] if table else tensor.shape[:1] == shape[:1]
    if not rows or tensor.shape[1:] != shape[1:]:
        raise CheckpointError(
            f"{path}: tensor {name!r} has shape {list(tensor.shape)}, config.json wants "
            f"{list(shape)}"
        )
    count = shape[0] * shape[1] if table else None
    return lambda: tensor.read(count)
