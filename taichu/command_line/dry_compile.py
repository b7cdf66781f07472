"""Compile one graph of a recipe for a device that is not there, without data and weights.

    python -m taichu.command_line.dry_compile DEVICE GRAPH RECIPE [key=value ...]

A child of `taichu ascend check`, which runs it over stand-ins of CANN's or CUDA's libraries.
"""

import sys

import mindspore as ms
import numpy as np
from mindspore.nn.utils import no_init_parameters

from ascend.device import set_device
from ascend.device_matrix import ParallelConfig, choose_device_matrix
from ascend.operators import AdamW
from ascend.precision import choose_precision
from taichu.command_line.train import load_recipe
from taichu.data.batches import MixtureConfig
from taichu.data.packing import empty_batch
from taichu.errors import ConfigError
from taichu.model.codec import Codec, CodecObjective
from taichu.model.continuation import Continuation
from taichu.storage.model_folder import read_size
from taichu.training.blueprint import Blueprint
from taichu.training.objectives import Objective
from taichu.training.pipeline import make_training_step
from taichu.training.step import TrainingStep

CONDITIONS, LENGTH, MADE = 8, 64, 16  # rows, places and new tokens of the graphs of generation


def compile_step(config, blueprint: Blueprint):
    """Forward, backward and update of the backbone, as `recipes.pretrain` runs them."""
    with no_init_parameters():
        alpha = blueprint.mixture.alignment_weight
        objective = Objective(blueprint.backbone(), blueprint.ids, alpha, blueprint.decoding)
        step = _training_step(objective, config.train)
    batch = empty_batch(blueprint.batch_shape())
    for _ in range(config.train.accumulate):
        step(*map(ms.Tensor, batch.arrays()))


def compile_prefill(config, blueprint: Blueprint):
    """The graph that reads conditions."""
    with no_init_parameters():
        continuation = Continuation(blueprint.backbone())
    rows = np.zeros((CONDITIONS, LENGTH), np.int32)
    coords = np.zeros((CONDITIONS, LENGTH, 3), np.int32)
    patches = [np.zeros((CONDITIONS * T, P), np.float32) for T, P in blueprint.grids]
    ms.jit(continuation.read)(*map(ms.Tensor, (rows, rows, coords, rows, rows, *patches)))


def compile_decode(config, blueprint: Blueprint):
    """The graph that makes the next token of each row, with what is kept of those before."""
    with no_init_parameters():
        continuation = Continuation(blueprint.backbone())
    size, kept = blueprint.size, []
    for length in (LENGTH, MADE):
        shape = CONDITIONS, size.heads, length, size.head_size
        kept += [np.zeros(shape, np.float32)] * (2 * size.depth)
    kept = [ms.Tensor(array, continuation.type) for array in kept]
    rows = (CONDITIONS,), (CONDITIONS, 3), (1,), (CONDITIONS, LENGTH)
    ids, coords, made, segment = (ms.Tensor(np.zeros(shape, np.int32)) for shape in rows)
    ms.jit(continuation.step)(ids, coords, made, segment, *kept)


def compile_codec(config, blueprint: Blueprint):
    """A codec's training step, encoder and decoder; all modalities' are of one class."""
    name, adapter = next(iter(blueprint.adapters.items()))
    with no_init_parameters():
        codec = Codec(blueprint.size.codecs[name], adapter.geometry)
        settings = getattr(config, "codecs", config.train)
        step = _training_step(CodecObjective(codec), getattr(config, "train", settings))
    patches = ms.Tensor(np.zeros(codec.shape, np.float32))
    step(patches)
    ms.jit(codec.encode)(patches)
    ms.jit(codec.decode)(ms.Tensor(np.zeros(codec.shape[:2], np.int32)))


def _training_step(objective, settings) -> TrainingStep:
    optimizer = AdamW(objective.trainable_params(), settings.rate)
    recompute = settings.recompute and isinstance(objective, Objective)
    return make_training_step(objective, optimizer, settings.accumulate, recompute)


GRAPHS = {
    "step": compile_step,
    "prefill": compile_prefill,
    "decode": compile_decode,
    "codec": compile_codec,
}


def graphs_of(config) -> list[str]:
    """Names of the graphs that a recipe runs.

    Raises:
        ConfigError: the recipe trains no model.
    """
    if not hasattr(config, "model"):
        raise ConfigError("the recipe has no key 'model': there is no graph to check")
    return list(GRAPHS) if hasattr(config, "mixture") else ["codec"]


def main(device: str, graph: str, recipe: str, *overrides: str):
    _, config = load_recipe(recipe, list(overrides))
    set_device(device)
    choose_precision(config.precision)
    choose_device_matrix(getattr(config, "parallel", ParallelConfig()))
    mixture = getattr(config, "mixture", MixtureConfig(groups={}))
    GRAPHS[graph](config, Blueprint(read_size(config.model), mixture))


if __name__ == "__main__":
    main(*sys.argv[1:])
