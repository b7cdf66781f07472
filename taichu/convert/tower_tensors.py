"""The tensors of a published encoder as those of a tower, read part by part."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modality_adapters.grid import GridGeometry
from taichu.convert.sharded_tensors import find_tensors, require_tensor
from taichu.convert.tower_settings import TowerSettings
from taichu.errors import CheckpointError
from taichu.model.towers.shapes import tower_shapes
from taichu.storage.tensor_stream import StoredTensor, Streamed

# ours -> theirs, of a tower and of a layer
VISION = {
    "patches": "embeddings.patch_embedding",
    "place": "embeddings.position_embedding.weight",
    "start": "embeddings.class_embedding",
    "first_norm": "pre_layrnorm",  # as it is spelled there
    "encoder.norm": "post_layernorm",
}
VISION_LAYER = {
    "attention_norm": "layer_norm1",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.out_proj",
    "feed_forward_norm": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
SOUND = {
    "convolution_1": "conv1",
    "convolution_2": "conv2",
    "place": "embed_positions.weight",
    "encoder.norm": "layer_norm",
}
SOUND_LAYER = VISION_LAYER | {
    "attention_norm": "self_attn_layer_norm",
    "feed_forward_norm": "final_layer_norm",
    "up": "fc1",
    "down": "fc2",
}
# how an encoder's names may begin, by what is inside; and what else is in its file
PREFIXES = {"vision": ("vision_model.", ""), "sound": ("model.encoder.", "encoder.", "")}
BESIDE = {
    "clip": ("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
    "siglip": ("text_model.", "logit_scale", "logit_bias"),
    "whisper": ("model.decoder.", "decoder.", "proj_out."),
}
UNREAD = {
    "clip": ("post_layernorm.",),
    "siglip": ("head.", "post_layernorm."),
    "whisper": ("layer_norm.",),
}
NUMBERS = ("position_ids",)  # that were once saved, and say nothing


def tower_tensors(folder: Path, settings: TowerSettings) -> dict[str, Streamed]:
    """A tower's tensors by our names, float32.

    Raises:
        CheckpointError: a tensor is missing, misshapen or not known, or a file is damaged; see
            `taichu.convert.sharded_tensors.find_tensors`.
    """
    tower, tensors = settings.tower, find_tensors(folder, NUMBERS)
    if settings.published_depth > len(tensors):  # of which names alone would fill the memory
        layers = f"{settings.published_depth:,} layers"
        raise CheckpointError(f"{folder}: config.json names {layers}, of {len(tensors)} tensors")
    shape, patch = settings.adapter["shape"], settings.adapter["patch"]
    geometry = GridGeometry(tuple(shape), tuple(patch))
    shapes = tower_shapes(tower, geometry.tokens, geometry.patch_size)
    sound = tower.kind == "whisper"
    marker = "conv1.weight" if sound else "embeddings.patch_embedding.weight"
    possible = PREFIXES["sound" if sound else "vision"]
    prefix = next((p for p in possible if p + marker in tensors), possible[0])
    made, read = {}, set()
    for ours, wanted in shapes.items():
        theirs = prefix + their_name(ours, sound)
        published = _published_shape(ours, wanted, settings)
        tensor = require_tensor(tensors, theirs, published, folder)
        read.add(theirs)
        made[ours] = _as_ours(tensor, wanted)
    for name in sorted(set(tensors) - read):
        if not _is_unread(name, prefix, settings):
            raise CheckpointError(
                f"{tensors[name].path}: tensor {name!r}: it is not part of {tower.kind}"
            )
    return made


def their_name(ours: str, sound: bool) -> str:
    """How a tensor of a tower is called in a published encoder."""
    top, inner = (SOUND, SOUND_LAYER) if sound else (VISION, VISION_LAYER)
    if ours in top:
        return top[ours]
    part, _, last = ours.rpartition(".")  # weight or bias
    if part in top:
        return f"{top[part]}.{last}"
    _, _, number, part = part.split(".", 3)
    layers = "layers" if sound else "encoder.layers"
    return f"{layers}.{number}.{inner[part]}.{last}"


def _is_unread(name: str, prefix: str, settings: TowerSettings) -> bool:
    """Whether a tensor is part of the published model, and not of the tower."""
    kind = settings.tower.kind
    if name.startswith(BESIDE[kind]):
        return True
    if not name.startswith(prefix):
        return False
    name = name.removeprefix(prefix)
    later = range(settings.tower.depth, settings.published_depth)
    start = "layers" if kind == "whisper" else "encoder.layers"
    return name.startswith((*UNREAD[kind], *(f"{start}.{n}." for n in later)))


def _as_ours(tensor: StoredTensor, wanted: tuple[int, ...]) -> Streamed:
    """One tensor; of a convolution, its inputs in the order of a patch's."""
    if len(tensor.shape) < 3:
        return Streamed("F32", wanted, tensor.read)

    def read() -> Iterator[np.ndarray]:  # the channels last; it is small
        weight = np.concatenate(list(tensor.read())).reshape(tensor.shape)
        yield np.ascontiguousarray(np.moveaxis(weight, 1, -1)).reshape(-1)

    return Streamed("F32", wanted, read)


def _published_shape(ours: str, wanted: tuple[int, ...], settings: TowerSettings):
    """A convolution's weight is (outputs, channels, places ...)."""
    if ours == "patches.weight":
        channels = settings.tower.channels
        side = math.isqrt(wanted[1] // channels)
        return wanted[0], channels, side, side
    if ours.startswith("convolution") and ours.endswith("weight"):
        return wanted[0], wanted[1] // 3, 3
    return wanted
