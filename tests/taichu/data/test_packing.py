"""Packing: every token is placed once, nothing overlaps, weights and padding come out right."""

import numpy as np
import pytest

from taichu.data.layout import GROUPED, JOINT, Segment, lay_out
from taichu.data.packing import BatchShape, Layout, empty_batch, pack, pack_rows

SHAPE = BatchShape(8, 64, 300, 20, (("image", 80, 6), ("audio", 60, 4)))


def draw(samples, caption: int) -> Layout:
    """A layout of one of the three trainings."""
    media = samples.patches("image"), samples.patches("audio"), samples.text()
    a, b = samples.random.permutation(3)[:2]
    kind = samples.random.integers(3)
    if kind == 0:
        sides = (Segment((media[a],), embedding=1), Segment((media[b],), embedding=1))
        return Layout(sides, int(samples.random.integers(3)), caption, aligned=True)
    if kind == 1:
        first = Segment((media[a],), (samples.codes("image"),), GROUPED, embedding=1)
        second = Segment((media[b],), (samples.text(),), GROUPED, embedding=1)
        return Layout((first, second), 0, caption, aligned=True)
    decoded = samples.codes("audio"), samples.text()
    return Layout(
        (Segment((), decoded, JOINT), Segment((media[a],), decoded[:1], JOINT)), 1, caption
    )


@pytest.fixture
def packed(samples, vocabulary):
    layouts = [draw(samples, caption) for caption in range(30)]
    batch, left = pack(layouts, SHAPE, vocabulary, grouped_weight=2.0, joint_weight=0.5)
    return layouts, batch, left


def placed_segments(batch):
    """Each segment's (row, slice)."""
    for row, segments in enumerate(batch.segment):
        for number in range(1, segments.max() + 1):
            places = np.flatnonzero(segments == number)
            assert (np.diff(places) == 1).all()  # one stretch
            yield row, slice(places[0], places[-1] + 1)


def key(ids, coords, span):
    return ids.tobytes(), coords.tobytes(), span.tobytes()


def test_everything_is_placed_once_and_nothing_overlaps(packed, vocabulary):
    layouts, batch, left = packed
    placed = [layout for layout in layouts if not any(layout is other for other in left)]
    assert left and placed and len(left) + len(placed) == len(layouts)
    wanted = []
    for layout in placed:
        for segment in layout.segments:
            tokens = lay_out(segment, vocabulary)
            wanted.append(key(tokens.ids, tokens.coords, tokens.span))
    found = [
        key(batch.ids[row, part], batch.coords[row, part], batch.span[row, part])
        for row, part in placed_segments(batch)
    ]
    assert sorted(found) == sorted(wanted)
    tokens = sum(len(segment) for layout in placed for segment in layout.segments)
    assert (batch.segment > 0).sum() == tokens
    assert batch.padding == pytest.approx(1 - tokens / batch.segment.size)


def test_padding_holds_nothing(packed, vocabulary):
    _, batch, _ = packed
    padding = batch.segment == 0
    assert padding.any()
    assert (batch.ids[padding] == vocabulary.pad).all()
    for plane in (batch.source, batch.span, batch.pool, batch.coords):
        assert (plane[padding] == 0).all()


def test_each_source_points_at_its_own_patch(packed, vocabulary):
    layouts, batch, _ = packed
    stacked = [np.pad(patches, ((0, 0), (0, 6 - patches.shape[1]))) for patches in batch.patches]
    stacked = np.concatenate([np.zeros((1, 6), np.float32), *stacked])
    used = batch.source[batch.source > 0]
    assert len(np.unique(used)) == len(used)
    patch_ids = {m: vocabulary.patch(m) for m in ("image", "audio")}
    assert ((batch.source > 0) == np.isin(batch.ids, list(patch_ids.values()))).all()
    known = {
        (span.modality, span.patches.tobytes())
        for layout in layouts
        for segment in layout.segments
        for span in segment.observed
        if span.patches is not None
    }
    for row, part in placed_segments(batch):
        for modality, size in (("image", 6), ("audio", 4)):
            chosen = batch.source[row, part][batch.ids[row, part] == patch_ids[modality]]
            if len(chosen):
                rows = np.ascontiguousarray(stacked[chosen][:, :size])
                assert (modality, rows.tobytes()) in known


def test_pairs_pool_the_two_sides(packed, vocabulary):
    layouts, batch, _ = packed
    by_caption = {layout.caption: layout for layout in layouts}
    pairs = int((batch.pair_group >= 0).sum())
    assert pairs and set(np.unique(batch.pool)) == set(range(2 * pairs + 1))
    for pair in range(pairs):
        layout = by_caption[batch.pair_caption[pair]]
        assert layout.aligned and batch.pair_group[pair] == layout.group
        for side in (0, 1):
            segment = layout.segments[side]
            expected = lay_out(segment, vocabulary)
            ids = batch.ids[batch.pool == 2 * pair + 1 + side]
            np.testing.assert_array_equal(ids, expected.ids[expected.pool > 0])
    assert (batch.pair_caption[pairs:] == -1).all()


def test_targets_follow_their_positions(packed, vocabulary):
    _, batch, _ = packed
    ids = batch.ids.reshape(-1)
    used = batch.weights > 0
    positions, targets = batch.positions[used], batch.targets[used]
    assert len(np.unique(positions)) == len(positions)
    np.testing.assert_array_equal(ids[positions + 1], targets)  # the next token
    low, high = batch.ranges[used].T
    assert ((low <= targets) & (targets < high)).all()
    assert (batch.ranges[~used] == (0, 1)).all() and (batch.targets[~used] == 0).all()


def test_each_training_has_its_weight(packed, vocabulary):
    _, batch, _ = packed
    joint = (batch.ranges == (0, vocabulary.size)).all(1)
    assert batch.weights[joint].sum() == pytest.approx(0.5, abs=1e-6)
    assert batch.weights[~joint].sum() == pytest.approx(2.0, abs=1e-6)


def test_weights_are_the_mean_over_modalities_of_their_means(samples, vocabulary):
    text, codes = samples.text(5), samples.codes("audio")
    layouts = [Layout((Segment((), (decoded,), GROUPED),), 0, 0) for decoded in (text, codes)]
    batch, _ = pack(layouts, SHAPE, vocabulary)
    is_text = batch.targets <= vocabulary.pieces
    used = batch.weights > 0
    assert (used & is_text).sum() == 6 and (used & ~is_text).sum() == 3
    np.testing.assert_allclose(batch.weights[used & is_text], 0.5 / 6, rtol=1e-6)
    np.testing.assert_allclose(batch.weights[used & ~is_text], 0.5 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "change, fitting",
    [
        ({"rows": 1, "length": 12}, 1),  # a layout's two segments take 6 + 6
        ({"pairs": 2}, 2),
        ({"patches": (("image", 11, 6), ("audio", 0, 4))}, 2),
        ({"targets": 13}, 3),
    ],
)
def test_limits(samples, vocabulary, change, fitting):
    """Of five layouts, each of two segments of six tokens, as many as the shape allows."""
    shape = BatchShape(**{**SHAPE.__dict__, **change})
    layouts = []
    for caption in range(5):
        sides = [Segment((samples.patches("image"),), embedding=1)]
        sides += [Segment((samples.text(4),), embedding=1)]
        if "targets" in change:
            sides[1] = Segment((), (samples.codes("image"),), GROUPED)
        layouts.append(Layout(tuple(sides), 0, caption, aligned="pairs" in change))
    batch, left = pack(layouts, shape, vocabulary)
    assert len(left) == 5 - fitting
    assert batch.segment.max(1).sum() == 2 * fitting


def test_a_layout_is_placed_whole_or_not_at_all(samples, vocabulary):
    shape = BatchShape(1, 10, 1, 4, SHAPE.patches)
    short, long = (Segment((samples.text(n),)) for n in (3, 6))
    batch, left = pack([Layout((short, long), 0, 0)], shape, vocabulary)
    assert len(left) == 1 and batch.padding == 1.0


def test_well_chosen_rows_leave_little_padding(samples, vocabulary):
    shape = BatchShape(16, 128, 1, 1, (("image", 1000, 6), ("audio", 1000, 4)))
    layouts = [Layout((Segment((samples.text(),)),), 0, 0) for _ in range(400)]
    assert pack(layouts, shape, vocabulary)[0].padding < 0.01


def test_packing_is_repeatable(samples, vocabulary):
    layouts = [draw(samples, caption) for caption in range(30)]
    one, two = (pack(layouts, SHAPE, vocabulary)[0] for _ in range(2))
    assert all((a == b).all() for a, b in zip(one.arrays(), two.arrays()))


def test_pack_rows_keeps_the_order(samples, vocabulary):
    segments = [Segment((samples.patches("image"),)), Segment((samples.text(3),)), Segment(())]
    batch = pack_rows(segments, 16, vocabulary, {"image": (4, 6), "audio": (3, 4)})
    assert batch.ids.shape == (3, 16)
    for row, segment in enumerate(segments):
        expected = lay_out(segment, vocabulary)
        np.testing.assert_array_equal(batch.ids[row, : len(segment)], expected.ids)
        assert (batch.segment[row] > 0).sum() == len(segment)
    np.testing.assert_array_equal(batch.patches[0][:4], segments[0].observed[0].patches)


def test_shapes_and_types_are_fixed(packed):
    _, batch, _ = packed
    for array, blank in zip(batch.arrays(), empty_batch(SHAPE).arrays()):
        assert array.shape == blank.shape and array.dtype == blank.dtype
        assert array.dtype in (np.int32, np.float32)
