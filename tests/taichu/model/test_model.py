"""The backbone against a NumPy reference; packed rows against samples run alone; its size."""

import re
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from modality_adapters import create_adapter
from taichu.config import ModelConfig, load_size
from taichu.data.layout import JOINT, Segment
from taichu.data.packing import BatchShape, Layout, pack
from taichu.model.backbone import Backbone, count_parameters
from taichu.model.codec import FiniteScalarQuantizer
from taichu.model.id_table import IdTable
from taichu.model.patch_embedder import PatchScale
from taichu.model.rotary_frequencies import rotary_frequencies
from taichu.vocabulary import JointIds

SMALL = ModelConfig(
    width=32, depth=2, heads=4, key_value_heads=2, head_size=12, hidden=40, embedding=10, pieces=0
)
QWEN2 = ModelConfig(
    width=24,
    depth=1,
    heads=2,
    key_value_heads=1,
    head_size=16,
    hidden=40,
    embedding=10,
    pieces=0,
    query_key_norm=False,
    bias=True,
    tied=False,
)
EXPERTS = replace(SMALL, experts=3)
GRIDS = [(4, 6), (3, 4)]  # tokens and patch sizes of the samples' image and audio


def draw_backbone(config, vocabulary_size, random) -> Backbone:
    """A backbone whose every parameter is drawn, gains and biases too."""
    backbone = Backbone(config, vocabulary_size, GRIDS)
    for parameter in backbone.get_parameters():
        drawn = random.standard_normal(parameter.shape) * 0.2
        drawn = drawn + 1 if re.search("norm|deviation", parameter.name) else drawn
        parameter.set_data(ms.Tensor(np.asarray(drawn, np.float32)))
    return backbone


def run(backbone, batch) -> np.ndarray:
    """Hidden states (B, L, D)."""
    arrays = batch.ids, batch.source, batch.coords, batch.segment, batch.span, *batch.patches
    hidden = backbone(*(ms.Tensor(a) for a in arrays)).asnumpy()
    return hidden.reshape(*batch.ids.shape, -1)


def test_a_packed_batch_equals_its_samples_run_one_by_one(seeded, samples, vocabulary):
    backbone = draw_backbone(SMALL, vocabulary.size, seeded)
    layouts = []
    for caption in range(6):
        observed = [samples.patches("image"), samples.text(), samples.patches("audio")]
        sides = (
            Segment(tuple(observed[: 1 + caption % 3]), embedding=1),
            Segment((observed[2],), (samples.codes("image"), samples.text()), JOINT, embedding=1),
        )
        layouts.append(Layout(sides, 0, caption, aligned=True))
    patches = (("image", 32, 6), ("audio", 30, 4))
    batch, left = pack(layouts, BatchShape(4, 64, 200, 8, patches), vocabulary)
    assert not left and batch.segment.max() > 1 and batch.padding > 0
    together = run(backbone, batch)
    pooled = backbone.embed(
        ms.Tensor(together.reshape(-1, SMALL.width)), ms.Tensor(batch.pool), 16
    ).asnumpy()
    for layout in layouts:
        pair = int(np.flatnonzero(batch.pair_caption == layout.caption)[0])
        for side, segment in enumerate(layout.segments):
            alone_shape = BatchShape(1, len(segment), 200, 1, patches)
            alone, _ = pack([Layout((segment,), 0, 0)], alone_shape, vocabulary)
            expected = run(backbone, alone)[0]
            row, first = np.argwhere(batch.pool == 2 * pair + 1 + side)[0]
            start = first - 1  # the opening token is not pooled
            actual = together[row, start : start + len(segment)]
            np.testing.assert_allclose(actual, expected, atol=1e-5)
            contents, start = [], 1
            for span in segment.observed:
                contents += expected[start : start + len(span)].tolist()
                start += len(span) + 2
            mean = np.mean(contents, 0) @ backbone.projection.weight.asnumpy().T
            unit = mean / np.linalg.norm(mean)
            np.testing.assert_allclose(pooled[2 * pair + side], unit, atol=1e-5)


def reference(config, parameters, ids, position):
    """The block of LLaMA, Qwen2 and Qwen3 over one text, with one-dimensional RoPE, in float64."""

    def get(name):
        return parameters[name].astype(np.float64)

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon) * get(name)

    def linear(x, name):
        bias = get(f"{name}.bias") if f"{name}.bias" in parameters else 0
        return x @ get(f"{name}.weight").T + bias

    def turn(x):
        half = config.head_size // 2
        angle = position[:, None] * config.rope_base ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)

    x, n, K = get("table.own")[ids] * config.width**0.5, len(ids), config.head_size
    for i in range(config.depth):
        block = f"blocks.{i}"
        y = norm(x, f"{block}.attention_norm.weight")
        q = linear(y, f"{block}.attention.query").reshape(n, -1, K)
        k = linear(y, f"{block}.attention.key").reshape(n, -1, K)
        v = linear(y, f"{block}.attention.value").reshape(n, -1, K)
        if config.query_key_norm:
            q = norm(q, f"{block}.attention.query_norm.weight")
            k = norm(k, f"{block}.attention.key_norm.weight")
        share = config.heads // config.key_value_heads
        k, v = np.repeat(turn(k), share, 1), np.repeat(v, share, 1)
        scores = np.einsum("ihk,jhk->hij", turn(q), k) / np.sqrt(K)
        p = np.exp(np.where(np.tri(n, dtype=bool), scores, -np.inf))
        p = p / p.sum(-1, keepdims=True)
        x = x + linear(np.einsum("hij,jhk->ihk", p, v).reshape(n, -1), f"{block}.attention.output")
        y = norm(x, f"{block}.feed_forward_norm.weight")
        gate = linear(y, f"{block}.feed_forward.gate")
        y = gate / (1 + np.exp(-gate)) * linear(y, f"{block}.feed_forward.up")
        x = x + linear(y, f"{block}.feed_forward.down")
    x = norm(x, "norm.weight")
    return x, x @ (get("table.own") if config.tied else get("head.own")).T


@pytest.mark.parametrize("config", [SMALL, QWEN2], ids=["qwen3", "qwen2"])
def test_text_alone_runs_as_in_a_plain_decoder(seeded, vocabulary, config):
    backbone = draw_backbone(config, vocabulary.size, seeded)
    ids = seeded.integers(0, vocabulary.size, 11).astype(np.int32)
    position = np.arange(11, dtype=np.int32) + 5
    plane = np.zeros((1, 11), np.int32)
    arrays = [ids[None], plane, np.repeat(position[None, :, None], 3, 2), plane + 1, plane]
    patches = [np.zeros(grid, np.float32) for grid in GRIDS]
    hidden = backbone(*(ms.Tensor(a) for a in (*arrays, *patches)))
    logits = backbone.decode(hidden).asnumpy()
    parameters = {p.name: p.asnumpy() for p in backbone.get_parameters()}
    expected_hidden, expected_logits = reference(config, parameters, ids, position)
    np.testing.assert_allclose(hidden.asnumpy(), expected_hidden, atol=2e-5)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)


def test_each_pair_of_features_follows_one_axis():
    frequencies = rotary_frequencies(load_size("nano"))
    assert frequencies.shape == (3, 16)
    assert ((frequencies > 0).sum(0) == 1).all()
    np.testing.assert_allclose(frequencies.sum(0), 10000.0 ** (-np.arange(16) / 16), rtol=1e-6)
    dealt = (frequencies > 0).sum(1)
    assert dealt.sum() == 16 and (abs(dealt - 16 * np.array([0.4, 0.3, 0.3])) < 1).all()


def test_tokens_see_what_they_should(seeded, samples, vocabulary):
    """A later patch changes its own span and what follows, and nothing before the span."""
    backbone = draw_backbone(SMALL, vocabulary.size, seeded)
    image = samples.patches("image")
    segment = Segment((samples.text(3), image, samples.text(2)))
    shape = BatchShape(1, len(segment), 1, 1, (("image", 4, 6), ("audio", 3, 4)))
    batch, _ = pack([Layout((segment,), 0, 0)], shape, vocabulary)
    before = run(backbone, batch)[0]
    batch.patches[0][3] += 1
    change = np.abs(run(backbone, batch)[0] - before).max(-1)
    first = 5 + 1  # after <text> ... </text> <image>
    assert (change[:first] == 0).all() and (change[first:] > 1e-6).all()


def count(name: str) -> int:
    config = load_size(name)
    adapters = [create_adapter(n, s) for n, s in config.modalities.items()]
    sizes = [(a.geometry.tokens, a.geometry.patch_size) for a in adapters]
    codes = {name: codec.codes for name, codec in config.codecs.items()}
    return count_parameters(config, JointIds(config.pieces, codes).size, sizes)


FILLED = replace(SMALL, rows_multiple=100)


@pytest.mark.parametrize(
    "config",
    [SMALL, QWEN2, "nano", EXPERTS, FILLED],
    ids=["qwen3", "qwen2", "nano", "experts", "filled"],
)
def test_parameters_are_counted_right(seeded, config):
    config = load_size(config) if isinstance(config, str) else config
    backbone = Backbone(config, 1234, GRIDS)
    actual = sum(parameter.size for parameter in backbone.get_parameters())
    assert count_parameters(config, 1234, GRIDS) == actual


def test_patches_are_scaled_by_what_was_measured(seeded):
    scale, sample = PatchScale(6, 4), seeded.normal(3.0, 2.0, (500, 4, 6))
    sample[:, 1] += 5  # one place is brighter
    scale.measure(sample)
    patches = seeded.normal(0, 1, (8, 6))
    expected = (patches - np.tile(sample.mean(0), (2, 1))) / sample.std()
    scaled = scale(ms.Tensor(patches, ms.float32))
    np.testing.assert_allclose(scaled.asnumpy(), expected, atol=1e-5)
    np.testing.assert_allclose(scale.undo(scaled).asnumpy(), patches, atol=1e-5)
    scale.measure(np.full((3, 4, 6), 0.5))  # nothing but background
    assert np.isfinite(scale(ms.Tensor(patches, ms.float32)).asnumpy()).all()


def test_a_patch_stands_in_its_id_s_place(seeded, samples, vocabulary):
    backbone = draw_backbone(SMALL, vocabulary.size, seeded)
    segment = Segment((samples.patches("image"), samples.text(3)))
    shape = BatchShape(1, len(segment), 1, 1, (("image", 4, 6), ("audio", 3, 4)))
    batch, _ = pack([Layout((segment,), 0, 0)], shape, vocabulary)
    before, seen = run(backbone, batch), batch.source > 0
    assert seen.sum() == 4
    batch.ids[seen] = vocabulary.close("text")
    np.testing.assert_array_equal(run(backbone, batch), before)


def test_grids_differ_from_the_start(seeded, samples, vocabulary):
    """What all grids share does not hide what they say: else alignment learns nothing for long."""
    backbone, shape = Backbone(SMALL, vocabulary.size, GRIDS), (("image", 80, 6), ("audio", 3, 4))
    grids = np.full((40, 4, 6), -1.0) + seeded.normal(0, 0.2, (40, 4, 6))
    backbone.patch_scales[0].measure(grids)
    image = samples.patches("image")
    vectors = []
    for patches in grids[:20]:
        span = replace(image, patches=patches.astype(np.float32))
        batch, _ = pack(
            [Layout((Segment((span,), embedding=1), Segment((span,))), 0, 0, aligned=True)],
            BatchShape(1, 16, 1, 1, shape),
            vocabulary,
        )
        hidden = ms.Tensor(run(backbone, batch).reshape(-1, SMALL.width))
        vectors.append(backbone.embed(hidden, ms.Tensor(batch.pool), 2).asnumpy()[0])
    cosines = np.array(vectors) @ np.array(vectors).T
    assert np.abs(cosines[~np.eye(20, dtype=bool)]).mean() < 0.5


@pytest.mark.parametrize("rows", [53, 64])
def test_a_code_is_its_own_vector_and_those_of_its_digits(seeded, rows):
    levels = [(3, 2), (5, 4, 2)]
    table = IdTable(rows, 7 + 6 + 40, levels, 16)
    own, digits = (p.asnumpy().astype(np.float64) for p in (table.own, table.digits))
    vectors = table().asnumpy()
    np.testing.assert_allclose(vectors[:7], own[:7], atol=1e-6)
    first_code, first_digit = 7, 0
    for of in levels:
        quantizer = FiniteScalarQuantizer(of)
        codes = np.arange(np.prod(of))
        values = quantizer.digits(ms.Tensor(codes, ms.int32)).asnumpy()
        # the digits as the codec reads them, from -1 up, counted from 0
        counted = np.rint(values * (np.array(of) // 2) + np.array(of) // 2).astype(int)
        assert counted.min() == 0 and (counted.max(0) == np.array(of) - 1).all()
        starts = first_digit + np.cumsum([0, *of[:-1]])
        spelled = digits[starts + counted].sum(1) / np.sqrt(2 * len(of))
        expected = own[first_code + codes] * np.sqrt(0.5) + spelled
        np.testing.assert_allclose(vectors[first_code + codes], expected, atol=1e-6)
        first_code, first_digit = first_code + len(codes), first_digit + sum(of)
    assert first_code == 53 and first_digit == len(digits)
    assert len(vectors) == rows and (vectors[53:] == own[53:].astype(np.float32)).all()


@pytest.mark.parametrize(
    "name, least, most",
    [
        ("nano", 0.8e6, 2e6),
        ("tiny", 20e6, 30e6),
        ("base", 300e6, 400e6),
        ("3.8b", 3.7e9, 3.9e9),
    ],
)
def test_sizes_are_what_their_names_say(name, least, most):
    assert least < count(name) < most
