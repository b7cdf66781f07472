"""A published language model as the backbone of a taichu folder whose modalities start new.

    OUT/config.json          sizes, switches, and the published config.json
    OUT/model.safetensors    float32: the published tensors, and new ones
    OUT/codecs/*.safetensors new
    OUT/towers/*.safetensors published vision and sound encoders, where there are any
    OUT/tokenizer.*          the published one

Text keeps the published ids; control tokens and codes follow. Tensors pass through part by part, so
that memory does not hang on the model's size.
"""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from taichu.config import ModelConfig, Published, load_size, nearest
from taichu.convert.families import backbone_settings
from taichu.convert.names import HEAD, TABLE, language_tensors
from taichu.convert.new_folder import new_folder
from taichu.convert.new_parts import NewParts
from taichu.convert.sharded_tensors import find_tensors, require_tensor
from taichu.convert.tower_settings import TowerChoice, TowerSettings, tower_settings
from taichu.convert.tower_tensors import tower_tensors
from taichu.data.conversations.template import read_template, write_template
from taichu.errors import CheckpointError, ConfigError
from taichu.model.rotary_frequencies import rotary_frequencies
from taichu.storage.model_folder import codec_settings, create_adapters, read_json, write_settings
from taichu.storage.tensor_file import save_tensors
from taichu.storage.tensor_stream import StoredTensor, Streamed, write_stream
from taichu.tokenizer import Tokenizer, read_tokenizer
from taichu.vocabulary import Vocabulary


def convert_from_hf(
    folder: Path | str,
    out: Path | str,
    modalities: tuple[str, ...] = (),
    size: str = "nano",
    towers: dict[str, TowerChoice] | None = None,
) -> Path:
    """Write the taichu folder of a published one.

    Args:
        folder: config.json, model.safetensors or its shards, and tokenizer.json or tokenizer.model,
            of a model of `taichu.convert.families.FAMILIES`.
        out: a new folder.
        modalities: that the model gets beside text.
        size: whose settings of modalities, codecs and embeddings it gets.
        towers: by modality, which is added; its adapter reads what its tower was trained on.

    Raises:
        CheckpointError: a file is missing, damaged, or says what is not known; a tensor is missing,
            misshapen, or not known.
        ConfigError: a modality or size is unknown, or ``out`` is no new folder.
        DiskFullError: there is no room for it.
    """
    folder = Path(folder)
    content = read_json(folder / "config.json")
    settings, tokenizer = backbone_settings(content, folder / "config.json"), read_tokenizer(folder)
    settings["spare_pieces"] = _spare_pieces(tokenizer, settings["pieces"], folder)
    published = {name: tower_settings(choice) for name, choice in (towers or {}).items()}
    like = _with_modalities(load_size(size), (*modalities, *published))
    like = _with_towers(like, published)
    of_towers = {n: tower_tensors(Path(towers[n].folder), s) for n, s in published.items()}
    tensors = find_tensors(folder)
    config = ModelConfig(
        **settings,
        embedding=like.embedding,
        rows_multiple=like.rows_multiple,
        rope_axes=like.rope_axes,
        modalities=like.modalities,
        codecs=like.codecs,
        towers=like.towers,
    )
    copied = _check(tensors, config, folder)
    kinds = Counter(tensor.kind for tensor in tensors.values())
    kind = kinds.most_common(1)[0][0]
    others = {name: t.kind for name, t in tensors.items() if t.kind != kind}
    config = dataclasses.replace(config, published=Published(content, kind, others, copied))
    with new_folder(out) as partial:
        for name, made in of_towers.items():
            write_stream(partial / "towers" / f"{name}.safetensors", made)
        _write_model(tensors, config, tokenizer, partial)
        if template := read_template(folder):
            write_template(partial, template)
    return Path(out)


def _spare_pieces(tokenizer: Tokenizer, rows: int, folder: Path) -> int:
    """Rows of a published table behind the tokenizer's; tables are often filled up."""
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{folder / tokenizer.file}: has ids up to {tokenizer.size - 1}; vocab_size of "
            f"config.json is {rows}"
        )
    return rows - tokenizer.size


def _with_modalities(size: ModelConfig, modalities: tuple[str, ...]) -> ModelConfig:
    """A size with those of its modalities that are named, and no others."""
    for name in modalities:
        if name not in size.modalities:
            known = ", ".join(size.modalities)
            hint = nearest(name, size.modalities)
            raise ConfigError(f"modality {name!r} is unknown{hint}; there are {known}")
    chosen = [name for name in size.modalities if name in modalities]
    return dataclasses.replace(
        size,
        modalities={name: size.modalities[name] for name in chosen},
        codecs={name: size.codecs[name] for name in chosen},
    )


def _with_towers(size: ModelConfig, published: dict[str, TowerSettings]) -> ModelConfig:
    """A size whose modalities have towers, and adapters that read what these were trained on."""
    for name, settings in published.items():
        if settings.modality != name:
            raise ConfigError(
                f"--tower {name}: a tower of {settings.tower.kind} is of {settings.modality}"
            )
    adapters = {name: settings.adapter for name, settings in published.items()}
    return dataclasses.replace(
        size,
        modalities=size.modalities | adapters,
        towers={name: settings.tower for name, settings in published.items()},
    )


def _check(tensors: dict[str, StoredTensor], config: ModelConfig, folder: Path) -> bool:
    """That there are just the tensors that the config wants; what needs not be kept is taken out.

    Returns:
        whether a tied head was there besides the table.
    """
    wanted = set()
    for name, _, shape in language_tensors(config):
        require_tensor(tensors, name, shape, folder)
        wanted.add(name)
    copied = False
    for name in sorted(set(tensors) - wanted):
        tensor = tensors[name]
        if name == HEAD:  # tied
            copied = True
            table = tensors[TABLE]
            equal = (tensor.kind, tensor.shape) == (table.kind, table.shape) and all(
                np.array_equal(part.view(np.uint32), other.view(np.uint32))
                for part, other in zip(tensor.read(), table.read())
            )
            why = "tie_word_embeddings is true, and it is not the table"
        elif name.endswith(".rotary_emb.inv_freq"):  # computed numbers that were once saved
            del tensors[name]
            steps = rotary_frequencies(config).sum(0)
            equal = tensor.shape == steps.shape and np.allclose(
                np.concatenate(list(tensor.read())), steps, rtol=1e-2
            )
            why = "it is not what rope_theta gives"
        else:
            equal, why = False, "it is not part of this model"
        if not equal:
            raise CheckpointError(f"{tensor.path}: tensor {name!r}: {why}")
    return copied


def _write_model(
    tensors: dict[str, StoredTensor], config: ModelConfig, tokenizer: Tokenizer, out: Path
):
    """Write all files of the folder."""
    adapters = create_adapters(config)
    geometries = {name: adapter.geometry for name, adapter in adapters.items()}
    rows = config.table_rows(Vocabulary.of_model(config, tokenizer).size)
    new, made, deviations = NewParts(), {}, {}
    for name, ours, shape in language_tensors(config):
        tensor = tensors[name]
        if name in (TABLE, HEAD):
            part = ours.removesuffix(".own")
            deviations[part] = _deviation(tensor)
            added = new.normal((rows - shape[0], shape[1]), deviations[part])
            made[ours] = Streamed("F32", (rows, shape[1]), _followed_by(tensor, added))
        else:
            made[ours] = Streamed("F32", shape, tensor.read)
    for name, array in new.backbone(config, geometries, deviations).items():
        made[name] = Streamed.of(array)
    write_stream(out / "model.safetensors", made)
    for name, geometry in geometries.items():
        path = out / "codecs" / f"{name}.safetensors"
        drawn = new.codec(config.codecs[name], geometry)
        save_tensors(path, drawn, codec_settings(config, name))
    write_settings(out, config, adapters, tokenizer)


def _followed_by(tensor: StoredTensor, rows: np.ndarray):
    """Reads a tensor's numbers, then some more rows."""

    def read():
        yield from tensor.read()
        yield rows.reshape(-1)

    return read


def _deviation(tensor: StoredTensor) -> float:
    """Standard deviation of a tensor's numbers, which new rows share.

    Raises:
        CheckpointError: they are not all finite.
    """
    count, total, squares = 0, 0.0, 0.0
    for part in tensor.read():
        count += len(part)
        total += float(part.sum(dtype=np.float64))
        squares += float(np.dot(part, part.astype(np.float64)))
    if not np.isfinite(squares):
        raise CheckpointError(f"{tensor.path}: tensor {tensor.name!r} holds numbers not finite")
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5
