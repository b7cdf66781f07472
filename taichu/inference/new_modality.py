"""A modality that a trained model has never seen is given to it; what it knows stays as it is."""

import dataclasses

import numpy as np

from taichu.config import CodecConfig
from taichu.errors import ConfigError
from taichu.inference.pretrained import Taichu
from taichu.storage.checkpoint import load_parameters, named_parameters
from taichu.vocabulary import TEXT, new_places

TABLES = ("table", "head")


def add_modality(model: Taichu, name: str, adapter: dict, codec: CodecConfig) -> Taichu:
    """A new model that reads and writes one modality more, the last in its order.

    All that the model has is copied bit for bit; the ids of its control tokens and codes move, as
    those of the new modality stand among them. New vectors, and the new embedder and codec, are
    drawn; in size they are as the model's own vectors are.

    Args:
        model: not under a tuning method; is left as it is.
        name: of one of `modality_adapters`.
        adapter: its settings, such as {"shape": [1, 32, 32, 1], "patch": [1, 8, 8]}.
        codec: its codec's.

    Raises:
        ConfigError: the model has this modality, it is unknown, or a setting is wrong.
    """
    if name in (TEXT, *model.config.modalities):
        raise ConfigError(f"modality {name!r}: the model has it already")
    config = dataclasses.replace(
        model.config,
        modalities={**model.config.modalities, name: adapter},
        codecs={**model.config.codecs, name: codec},
    )
    grown = Taichu(config, model.vocabulary.tokenizer)
    grown.template = model.template
    old = as_arrays(named_parameters(model.backbone))
    new = as_arrays(named_parameters(grown.backbone))
    V, places = model.vocabulary.size, new_places(model.vocabulary, grown.vocabulary)
    deviations = {table: old[f"{table}.own"][:V].std() for table in TABLES if f"{table}.own" in old}
    embedder = f"patch_embedders.{len(model.adapters)}."
    for path, drawn in new.items():
        table, _, part = path.partition(".")
        if table in TABLES:
            drawn *= deviations[table] * config.width**0.5  # drawn at 1 / sqrt(width)
            if part == "own":
                drawn[places] = old[path][:V]
            elif path in old:  # digits; a model of text alone has none
                drawn[: len(old[path])] = old[path]
        elif path in old:
            new[path] = old[path]
        elif path.startswith(embedder):  # drawn as large as looked-up vectors are at 1
            drawn *= deviations["table"] * config.id_scale
    load_parameters(named_parameters(grown.backbone), new, f"the model with {name}")
    for modality, kept in model.codecs.items():
        tensors = as_arrays(named_parameters(kept))
        load_parameters(named_parameters(grown.codecs[modality]), tensors, f"codec {modality}")
    return grown


def as_arrays(parameters) -> dict[str, np.ndarray]:
    """Copies of parameters, by path."""
    return {path: parameter.asnumpy().copy() for path, parameter in parameters.items()}
