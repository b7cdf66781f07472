"""The tensors of a published folder: one safetensors file, or several that an index names."""

from pathlib import Path

from taichu.errors import CheckpointError
from taichu.storage.float_kinds import RAW
from taichu.storage.model_folder import read_json
from taichu.storage.tensor_stream import StoredTensor, list_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def find_tensors(folder: Path, unread: tuple[str, ...] = ()) -> dict[str, StoredTensor]:
    """All tensors of a folder by name; only headers are read.

    Args:
        folder: of model.safetensors, or of its shards and their index.
        unread: last parts of names that are left out, whatever they hold.

    Raises:
        CheckpointError: a file is missing or damaged, holds a tensor that the index does not place
            there or one of other numbers than float32, float16 and bfloat16; the index names a file
            outside the folder; or there are both a single file and an index.
    """
    single, index = folder / SINGLE, folder / INDEX
    if index.is_file():
        if single.is_file():
            raise CheckpointError(f"{folder}: holds {SINGLE} and {INDEX}; delete one of them")
        found = _by_index(index)
    elif single.is_file():
        found = list_tensors(single)[0]
    else:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, which is never read" if pickles else ""
        raise CheckpointError(f"{folder}: holds neither {SINGLE} nor {INDEX}{hint}")
    found = {name: t for name, t in found.items() if name.rpartition(".")[2] not in unread}
    for name, tensor in found.items():
        if tensor.kind not in RAW:
            raise CheckpointError(
                f"{tensor.path}: tensor {name!r} is {tensor.kind}; it must be {', '.join(RAW)}"
            )
    return found


def require_tensor(
    tensors: dict[str, StoredTensor], name: str, shape: tuple[int, ...], folder: Path
) -> StoredTensor:
    """A tensor of `find_tensors`.

    Raises:
        CheckpointError: it is missing, or has another shape.
    """
    if name not in tensors:
        raise CheckpointError(f"{folder}: tensor {name!r} is missing")
    if tensors[name].shape != shape:
        raise CheckpointError(
            f"{tensors[name].path}: tensor {name!r} has shape {list(tensors[name].shape)}, "
            f"config.json wants {list(shape)}"
        )
    return tensors[name]


def _by_index(index: Path) -> dict[str, StoredTensor]:
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(f, str) for f in placed.values()):
        raise CheckpointError(f"{index}: weight_map must hold a file's name for each tensor")
    for name, file in placed.items():
        # a file of that name may be a link: caches of downloads are made of them
        if Path(file).name != file or "\\" in file or file in ("", ".", ".."):
            raise CheckpointError(f"{index}: {name!r} is placed outside the folder, in {file!r}")
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(placed.values())):
        tensors = list_tensors(index.with_name(file))[0]
        for name in tensors:
            if placed.get(name) != file:
                raise CheckpointError(f"{index.with_name(file)}: tensor {name!r} is not in {index}")
        found |= tensors
    for name, file in placed.items():
        if name not in found:
            raise CheckpointError(f"{index.with_name(file)}: tensor {name!r} is missing")
    return found
