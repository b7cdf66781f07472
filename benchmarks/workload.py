"""The training step that is timed: two sizes of the network, packed batches, and each way of it."""

import dataclasses
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from harness import THREADS

RATE = 1e-4
BATCHES = 3  # different ones, in turn
SIZES = ("nano", "25m")
WAYS = ("ours", "eager", "compiled")

Step = Callable[[list[np.ndarray]], tuple[float, float]]  # arrays -> loss, gradients' norm


def ours(
    size: str, recompute: bool = False, graphs: Path | None = None
) -> tuple[dict[str, np.ndarray], Step]:
    """The weights by name, and the step; its compiled graph is kept in ``graphs``."""
    from ascend.device import choose_device

    choose_device("CPU")
    import mindspore

    from ascend.operators import AdamW
    from taichu.model.backbone import Backbone
    from taichu.training.objectives import Objective
    from taichu.training.step import TrainingStep

    mindspore.set_seed(1)
    config, vocabulary, grids = network_of(size)
    objective = Objective(Backbone(config, vocabulary.size, grids), vocabulary)
    named = {p.name.removeprefix("backbone."): p for p in objective.get_parameters()}
    optimizer = AdamW(objective.trainable_params(), RATE)
    step = TrainingStep(objective, optimizer, recompute=recompute, graphs=graphs)

    def run(arrays):
        loss, _, norm = step(*map(mindspore.Tensor.from_numpy, arrays))
        return float(loss.asnumpy()), float(norm.asnumpy()[0])

    return {name: parameter.asnumpy() for name, parameter in named.items()}, run


def theirs(size: str, way: str, weights: dict[str, np.ndarray] | None = None) -> Step:
    """The same step in PyTorch, "eager" or "compiled"."""
    import torch
    from plain_torch import Network, TorchStep

    from taichu.model.rotary_frequencies import rotary_frequencies

    torch.set_num_threads(THREADS)
    config, vocabulary, grids = network_of(size)
    network = Network(config, vocabulary.size, grids, rotary_frequencies(config))
    if weights:
        network.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return TorchStep(network, way == "compiled", RATE)


@cache
def network_of(size: str):
    """The model's config, its vocabulary, and tokens and patch size of its grids.

    Both sizes see nano's modalities, so that only the network differs.
    """
    from taichu.config import load_size

    config = load_size("nano")
    if size == "25m":
        modalities = config.modalities
        config = dataclasses.replace(load_size("tiny"), modalities=modalities, depth=13)
    grids = [(g.tokens, g.patch_size) for g in geometries_of(config).values()]
    return config, vocabulary_of(config), grids


def geometries_of(config) -> dict:
    from modality_adapters import GridGeometry

    return {
        n: GridGeometry(tuple(s["shape"]), tuple(s["patch"])) for n, s in config.modalities.items()
    }


def vocabulary_of(config):
    """Codes of the config's modalities beside a few hundred pieces."""
    from taichu.tokenizer import train_tokenizer
    from taichu.vocabulary import Vocabulary

    random = np.random.default_rng(0)
    words = ["".join(map(chr, random.integers(97, 123, 4))) for _ in range(100)]
    lines = [" ".join(random.choice(words, 6)) for _ in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(lines, 400, Path(folder))
    return Vocabulary(tokenizer, {name: codec.codes for name, codec in config.codecs.items()})


def batches_of(size: str) -> list:
    """Arrays of packed batches."""
    from taichu.data.packing import pack

    vocabulary = network_of(size)[1]
    drawn, shape = layouts_of(size)
    return [pack(layouts, shape, vocabulary)[0].arrays() for layouts in drawn]


def layouts_of(size: str):
    """What goes into each batch, and their shape: text with each modality, both ways, a fifth of
    them jointly; a tenth more than fits."""
    from taichu.data.packing import BatchShape, pack

    config, vocabulary, _ = network_of(size)
    geometries = geometries_of(config)
    rows, length = (32, 128) if size == "nano" else (8, 128)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(BATCHES):
        layouts, free = [], 1.1 * rows * length
        while free > 0:
            modality = list(geometries)[len(layouts) % len(geometries)]
            layouts.append(draw(random, vocabulary, modality, geometries[modality], len(layouts)))
            free -= sum(len(segment) for segment in layouts[-1].segments)
        drawn.append(layouts)
    most = max(len(layouts) for layouts in drawn)
    share = -(-most // len(geometries))
    patches = tuple((n, share * g.tokens, g.patch_size) for n, g in geometries.items())
    shape = BatchShape(rows, length, rows * length, most, patches)
    batches = [pack(layouts, shape, vocabulary)[0] for layouts in drawn]
    targets = max(int((batch.weights > 0).sum()) for batch in batches)
    return drawn, dataclasses.replace(shape, targets=-(-targets // 64) * 64)


def draw(random, vocabulary, modality: str, geometry, caption: int):
    """One sample's two segments: text then codes, and patches then text."""
    from taichu.data.layout import GROUPED, JOINT, Segment, Span
    from taichu.data.packing import Layout

    where, codes = geometry.coordinates(), vocabulary.codes(modality)
    text = Span("text", ids=random.integers(0, vocabulary.pieces, random.integers(3, 12), np.int32))
    patches = random.standard_normal((geometry.tokens, geometry.patch_size), np.float32)
    seen = Span(modality, patches=patches, coordinates=where)
    ids = random.integers(codes.start, codes.stop, geometry.tokens, np.int32)
    made = Span(modality, ids=ids, coordinates=where)
    joint = random.random() < 0.2
    kind = JOINT if joint else GROUPED
    first = Segment((text,), (made,), kind, embedding=1)
    second = Segment((seen,), (text,), kind, embedding=1)
    group = list(vocabulary.media).index(modality)
    return Layout((first, second), group, caption, aligned=not joint)


def describe_batch(size: str) -> str:
    arrays = batches_of(size)[0]
    segment, weights = arrays[3], arrays[8]
    segments = int(segment.max(1).sum())
    return (
        f"{segment.shape[0]} x {segment.shape[1]} tokens, {segments} segments of "
        f"{(segment > 0).sum() / segments:.0f}, {(segment == 0).mean():.1%} padding, "
        f"{int((weights > 0).sum())} targets"
    )
