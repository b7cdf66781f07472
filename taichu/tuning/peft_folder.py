"""Adapters in PEFT's layout: adapter_config.json and one adapter_model.safetensors with all that
was trained, ``modules_to_save`` too.

The blocks' maps go by their names in Hugging Face's models (`taichu.tuning.peft_names`), so that an
adapter of a converted language model serves `peft` and `transformers`, and one of theirs serves
here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.ranks import read_ranks
from taichu.data.conversations.template import ChatTemplate, write_template
from taichu.errors import CheckpointError, ConfigError, TuningError
from taichu.model.backbone import Backbone
from taichu.model.published_names import TABLES
from taichu.storage.model_folder import read_json, write_json
from taichu.storage.tensor_file import load_tensors, save_tensors
from taichu.tuning.method import LinearMethod, Method, linear_maps
from taichu.tuning.methods import method_of
from taichu.tuning.patterns import select, select_parameters
from taichu.tuning.peft_names import to_peft
from taichu.tuning.tuned import Tuned, fingerprint, require_effect

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
TABLE, HEAD_KEY = "table.own", f"{PREFIX}{TABLES['head']}.weight"
# rows of tables that published models have not, which are those of no text
OTHERS = {f"{table}.own": f"{PREFIX}{table}.others" for table in TABLES}
WEIGHTS = ("lora_A", "lora_B")  # PEFT keeps LoRA's as maps of their own, so as their weights
MODULE_LISTS = ("target_modules", "feedforward_modules")
# keys that say nothing of what an adapter computes
NOTES = {"peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path"}
NOTES |= {"revision", "inference_mode", "megatron_core", "qalora_group_size"}
NOTES |= {"init_ia3_weights", "ensure_weight_tying"}
# beginnings of LoRA that leave the base as it is
BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Adapter:
    """What a folder holds.

    Attributes:
        path: of the folder.
        method: with its settings.
        tensors: all that was trained, by our path.
    """

    path: Path
    method: Method
    tensors: dict[str, np.ndarray]


def save_adapter(
    tuned: Tuned, folder: Path | str, base: str = "", template: ChatTemplate | None = None
) -> Path:
    """Write what was trained; of several ranks, which hold the same, the first does.

    Args:
        tuned: after training.
        folder: is made.
        base: the base model's folder or name, for who reads it.
        template: that it has learned conversations with, kept beside it as `peft`'s users do.

    Raises:
        TuningError: nothing was changed. DiskFullError: there is no room.
    """
    folder, method = Path(folder), tuned.method
    maps, tensors = linear_maps(tuned.backbone), tuned.tensors()
    if not read_ranks().first:
        return folder
    content = {
        "peft_type": method.peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "revision": None,
        "inference_mode": True,
    }
    if method.modules_to_save:  # not all of PEFT's methods know it
        content["modules_to_save"] = to_modules(method.modules_to_save, tuned.base)
    tied = TABLE in tuned.fully and tuned.backbone.head is None
    if tied:
        content["ensure_weight_tying"] = True
    for key, patterns in method.module_lists().items():
        content[key] = shortest(select(patterns, maps, key), maps)
    folder.mkdir(parents=True, exist_ok=True)
    by_key, pieces = {}, tuned.backbone.joint_ids.pieces
    for name, tensor in tensors.items():
        if name in OTHERS:
            by_key[OTHERS[name]], tensor = tensor[pieces:], tensor[:pieces]
        by_key[to_key(name, method)] = tensor
    if tied:  # as PEFT does
        by_key[HEAD_KEY] = by_key[to_key(TABLE, method)]
    save_tensors(folder / TENSORS, by_key, {"base": tuned.fingerprint()})
    write_json(folder / CONFIG, {**content, **method.settings(tuned.backbone)})
    if template:
        write_template(folder, template)
    return folder


def read_adapter(folder: Path | str, backbone: Backbone, base: dict[str, ms.Parameter]) -> Adapter:
    """Read what `save_adapter` or `peft` wrote.

    Args:
        folder: the adapter's.
        backbone: of the model that it is for; other adapters may have been put into it.
        base: the model's own parameters, by path, as they are without any.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, extra or misshapen.
        ConfigError: a setting is malformed.
        TuningError: the adapter is of another base, of a kind or a setting that is not understood,
            or changes nothing.
    """
    folder = Path(folder)
    by_key, notes = load_tensors(folder / TENSORS)
    maps = linear_maps(backbone)
    theirs = {path: PREFIX + to_peft(path) for path in maps}
    own = {f"{path}.{last}" for path in theirs.values() for last in ("weight", "bias")}
    beside = [key for key in by_key if key not in own]
    filled = [p for p, path in theirs.items() if any(k.startswith(f"{path}.") for k in beside)]
    method = read_method(folder / CONFIG, list(maps), filled, list(base))
    wanted = method.shapes(backbone, base)
    fully = select_parameters(method.modules_to_save, base, f"{folder}: modules_to_save")
    wanted |= {name: tuple(base[name].shape) for name in fully}
    if TABLE in fully and backbone.head is None and HEAD_KEY not in by_key:
        raise TuningError(
            f"{folder}: modules_to_save: the table was trained apart from the head, which is tied "
            "to it in this model; train with ensure_weight_tying"
        )
    tensors, where, pieces = {}, folder / TENSORS, backbone.joint_ids.pieces
    for name, shape in wanted.items():
        shape = (pieces, *shape[1:]) if name in OTHERS else shape
        tensors[name] = take(by_key, to_key(name, method), shape, where)
        if name in OTHERS:  # which PEFT's have not: they stay as they are
            if OTHERS[name] in by_key:
                rest = (base[name].shape[0] - pieces, *shape[1:])
                others = take(by_key, OTHERS[name], rest, where)
            else:
                others = base[name].asnumpy()[pieces:]
            tensors[name] = np.concatenate((tensors[name], others))
    for key, tensor in by_key.items():
        if not is_tied_copy(key, tensor, tensors, backbone):
            raise CheckpointError(f"{where}: tensor {key!r} is not part of this adapter")
    checksum = fingerprint(base, tensors)
    if notes.get("base", checksum) != checksum:
        raise TuningError(
            f"{folder}: was trained for another base, whose weights have the checksum "
            f"{notes['base']}; this model's have {checksum}"
        )
    arrays = {name: p.asnumpy() for name, p in base.items() if needed(name, tensors)}
    require_effect(method, tensors, arrays, backbone, str(folder))
    return Adapter(folder, method, tensors)


def take(by_key: dict[str, np.ndarray], key: str, shape: tuple[int, ...], where: Path):
    """A tensor, float32, taken out of a file's.

    Raises:
        CheckpointError: it is missing or misshapen.
    """
    if key not in by_key:
        raise CheckpointError(f"{where}: tensor {key!r} is missing")
    tensor = by_key.pop(key).astype(np.float32)
    if tensor.shape != tuple(shape):
        raise CheckpointError(
            f"{where}: tensor {key!r} has shape {list(tensor.shape)}, the model wants {list(shape)}"
        )
    return tensor


def is_tied_copy(key: str, tensor: np.ndarray, tensors, backbone: Backbone) -> bool:
    """Whether a tensor is what PEFT writes again of a table for the head that is tied to it."""
    path, _, last = key.removeprefix(PREFIX).rpartition(".")
    if backbone.head is not None or path != TABLES["head"]:
        return False
    table = tensors.get(TABLE if last == "weight" else f"table.{last}")
    return table is not None and np.array_equal(tensor, table[: len(tensor)])


def needed(name: str, tensors) -> bool:
    """Whether a base's parameter is one that an adapter changes."""
    around = name.rpartition(".")[0]
    return name in tensors or any(tensor.startswith(f"{around}.") for tensor in tensors)


def read_method(path: Path, maps: list[str], filled: list[str], base: list[str]) -> Method:
    """The method that an adapter_config.json describes.

    Args:
        path: of the file.
        maps: paths of the model's linear maps.
        filled: those of them that the adapter has tensors for; they are what a regular expression
            names, which is not run, as it comes from outside.
        base: paths of the model's own parameters.
    """
    content = read_json(path)
    cls = method_of(content)
    if cls is None:
        raise TuningError(f"{path}: peft_type {content.get('peft_type')!r} is not known")
    beginning = content.pop("init_lora_weights", None)
    if beginning not in BEGINNINGS:
        raise TuningError(
            f"{path}: init_lora_weights {beginning!r} has changed the base's weights; save the "
            "adapter by peft with path_initial_model_for_weight_conversion"
        )
    lists = {}
    if issubclass(cls, LinearMethod):
        lists = {key: read_list(content, key, path) for key in MODULE_LISTS if content.get(key)}
        maps = left_maps(content, maps, filled, path)
    if isinstance(fully := read_list(content, "modules_to_save", path), str):
        raise ConfigError(f"{path}: modules_to_save: must be a list of names")
    # what is not set says nothing, of whatever it is
    content = {
        key: value
        for key, value in content.items()
        if key not in NOTES and value not in (None, "", "none", [], {}) and value is not False
    }
    if issubclass(cls, LinearMethod) and not lists.get("target_modules"):
        raise TuningError(f"{path}: target_modules: names nothing")
    for key, named in lists.items():
        if isinstance(named, str):
            content[key] = filled
            continue
        for module in named:
            if not any(is_named(to_peft(map_), [module]) for map_ in maps):
                raise TuningError(f"{path}: {key}: the model has no {module!r}")
        content[key] = [map_ for map_ in maps if is_named(to_peft(map_), named)]
    content["modules_to_save"] = from_modules(fully, base)
    return cls.of_settings(content, str(path))


def left_maps(content: dict, maps: list[str], filled: list[str], path: Path) -> list[str]:
    """The maps that layers_to_transform and exclude_modules, taken out of settings, leave.

    Raises:
        ConfigError: one of them is malformed.
    """
    layers = content.pop("layers_to_transform", None)
    if isinstance(excluded := read_list(content, "exclude_modules", path), str):
        return filled  # an expression
    layers = [layers] if isinstance(layers, int) else layers
    if layers is not None:
        if not isinstance(layers, list) or not all(isinstance(number, int) for number in layers):
            raise ConfigError(f"{path}: layers_to_transform: must be a list of numbers")
        maps = [map_ for map_ in maps if map_.startswith(tuple(f"blocks.{n}." for n in layers))]
    return [map_ for map_ in maps if not is_named(to_peft(map_), excluded)]


def read_list(content: dict, key: str, path: Path) -> list[str] | str:
    """A list of names, or an expression for them, taken out of settings."""
    named = content.pop(key, None) or []
    if isinstance(named, str) and key != "feedforward_modules":
        return named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigError(f"{path}: {key}: must be a list of names")
    return named


def to_modules(patterns: tuple[str, ...], base: Iterable[str]) -> list[str]:
    """What PEFT calls the modules that patterns name; a pattern itself where not all that it names
    is whole modules of published models."""
    found = []
    for pattern in patterns:
        chosen = select_parameters([pattern], base, "modules_to_save")
        modules = {module_of(name) for name in chosen}
        whole = [name for name in base if module_of(name) in modules] == chosen
        published = all(to_peft(module) != module for module in modules)
        found += map(to_peft, sorted(modules)) if whole and published else [pattern]
    return found


def from_modules(named: list[str], base: list[str]) -> list[str]:
    """The parameters of modules that PEFT names, which are all whose path ends so; what is none of
    them is a pattern of ours."""
    theirs = {name: to_peft(module_of(name)) for name in base}
    theirs = {name: path for name, path in theirs.items() if path != module_of(name)}
    found = []
    for end in named:
        found += [name for name, path in theirs.items() if path.endswith(end)] or [end]
    return found


def module_of(parameter: str) -> str:
    """The path of the Cell that a parameter is of."""
    return parameter.rpartition(".")[0]


def is_named(path: str, named: list[str]) -> bool:
    """Whether a module is named, as PEFT does by a list: by the end of its path."""
    return any(path == name or path.endswith(f".{name}") for name in named)


def shortest(paths: list[str], maps: dict) -> list[str]:
    """The last names of modules, where they name no others; else the whole paths."""
    theirs = [to_peft(path) for path in paths]
    ends = list(dict.fromkeys(path.rpartition(".")[2] for path in theirs))
    every = [to_peft(path) for path in maps]
    return ends if [p for p in every if is_named(p, ends)] == theirs else theirs


def to_key(name: str, method: Method) -> str:
    """The name of a tensor in the file."""
    path, _, last = name.rpartition(".")
    if not path:
        return name if method.brings(name) else PREFIX + name
    last = "weight" if name in OTHERS else last
    return f"{PREFIX}{to_peft(path)}.{last}" + (".weight" if takes_weight(last, method) else "")


def takes_weight(last: str, method: Method) -> bool:
    return method.peft_type == "LORA" and last in WEIGHTS
