"""Batches of preferences: pairs whole, apart from each other, each answer where it belongs."""

import json
from collections import Counter
from itertools import count

import mindspore as ms
import numpy as np
import pytest

from ascend.device_matrix import Axis
from taichu.data.conversations.preference_batches import PairsConfig, PreferenceBatches
from taichu.data.conversations.prepared import PreferenceFile, prepare_preferences
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.data.packing import pack_into_rows
from taichu.errors import ConfigError, ConversationError
from taichu.training.objectives import Objective
from tests.taichu.conftest import TINY

WORDS = ("red", "seven", "blue", "three", "left", "top", "moves", "right", "yes")


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """Pairs whose answers are of one to four words; every second is about a picture."""
    folder, random = tmp_path_factory.mktemp("preferences"), np.random.default_rng(4)
    rows = []
    for number in range(40):
        row = {"prompt": f"{number}?"}
        if number % 2:
            name, adapter = f"{number}.png", tiny.adapters["image"]
            adapter.write(random.uniform(-1, 1, adapter.geometry.shape), folder / name)
            row = {"prompt": f"<image>{number}?", "images": [name]}
        for n, side in enumerate(("chosen", "rejected")):
            said = random.choice(WORDS, int(random.integers(1, 5)))
            row[side] = " ".join((f"{number} {n}", *said))
        rows.append(json.dumps(row) + "\n")
    path = folder / "x.jsonl"
    path.write_text("".join(rows))
    return prepare_preferences((PreferenceFile(str(path)),), TINY.modalities, folder / "cache", 1)


def make(data, tiny, seed=0, axis=None, **settings):
    config = PairsConfig(**{"rows": 3, "length": 96} | settings)
    how = ChatTemplate(DEFAULT), config, seed, axis
    return PreferenceBatches(data, tiny.vocabulary, tiny.adapters, *how)


def answers_of(batch, vocabulary):
    """[chosen, rejected] of each pair, read off a batch's arrays."""
    found = [["", ""] for _ in batch.pairs]
    packed = batch.packed
    for place in range(2 * len(batch.pairs)):
        here = (batch.answers == place) & (packed.weights > 0)
        ids = packed.targets[here]
        assert ids[-1] == vocabulary.close("text")
        found[place // 2][place % 2] = vocabulary.decode(ids[:-1])
        # all of it in one segment
        rows, columns = np.divmod(packed.positions[here], packed.ids.shape[1])
        assert len({(r, packed.segment[r, c]) for r, c in zip(rows, columns)}) == 1
    return found


def text_of(conversation):
    return conversation.turns[-1].parts[0][1]


def test_pairs_are_whole_and_each_answer_is_known(data, tiny):
    batches = make(data, tiny)
    assert batches.count == 40 and not batches.skipped
    batches.reference = np.arange(80, dtype=np.float32).reshape(40, 2)
    seen, shapes, twice = Counter(), set(), False
    for k in count():
        batch = batches(k)
        shapes.add(tuple(a.shape for a in batch.arrays()))
        packed, n = batch.packed, len(batch.pairs)
        # two segments a pair and no others
        assert packed.segment.max(1).sum() == 2 * n == 2 * (packed.pair_group == 0).sum()
        assert set(packed.pair_group[n:]) <= {-1}
        np.testing.assert_array_equal(batch.reference[:n], batches.reference[batch.pairs])
        for pair, found in zip(batch.pairs, answers_of(batch, tiny.vocabulary)):
            assert found == [text_of(c) for c in data.conversations[2 * pair : 2 * pair + 2]]
            seen[pair] += 1
        twice |= len(set(batch.pairs)) < n
        if k == 60:
            break
    # one of them at the end of an epoch and the beginning of the next, in one batch
    assert len(seen) == 40 and len(shapes) == 1 and twice
    assert max(seen.values()) - min(seen.values()) <= 3


def test_every_pair_once_or_those_of_the_first_batches(data, tiny):
    batches = make(data, tiny)
    every = [pair for batch in batches.once(range(40)) for pair in batch.pairs]
    assert sorted(every) == list(range(40))
    first = batches.first(2)
    assert first == sorted({pair for k in range(2) for pair in batches(k).pairs})
    found = [pair for batch in batches.once(first) for pair in batch.pairs]
    assert sorted(found) == first and 0 < len(first) < 40
    shape = [a.shape for a in batches(0).arrays()]
    assert all([a.shape for a in batch.arrays()] == shape for batch in batches.once(first))


def test_a_batch_depends_on_its_number_and_its_rank_alone(data, tiny):
    one, other = make(data, tiny), make(data, tiny)
    expected = {k: one(k).arrays() for k in range(4)}
    for k in (3, 0, 2, 3):
        for a, b in zip(other(k).arrays(), expected[k]):
            np.testing.assert_array_equal(a, b)
    for index in range(2):
        rank = make(data, tiny, axis=Axis("data", (0, 1), index))
        for a, b in zip(rank(1).arrays(), expected[2 + index]):
            np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(expected[0], expected[1]))
    assert make(data, tiny, seed=1)(0).pairs != one(0).pairs


def test_overlong_pairs_are_left_out_whole_and_counted(data, tiny):
    lengths = make(data, tiny).drawing.lengths.reshape(-1, 2).max(1)
    most = int(np.sort(lengths)[20])
    batches = make(data, tiny, length=most)
    longer = (lengths > most).sum()
    assert 0 < longer == batches.overlong == len(batches.skipped) == 40 - batches.count
    assert f"{longer} longer than {most} tokens, 0 that the template" in batches.summary
    assert f" tokens are more than length={most}" in batches.skipped[0]
    assert all(max(batches(k).packed.segment.max(1)) >= 1 for k in range(4))
    with pytest.raises(ConversationError, match=rf"x.jsonl:\d+: \d+ tokens are .*={most}"):
        make(data, tiny, length=most, overlong="error")
    with pytest.raises(ConversationError, match="no pair can be used; .*length=8"):
        make(data, tiny, length=8)
    with pytest.raises(ConfigError, match="overlong: 'truncate' is none of skip, error"):
        PairsConfig(overlong="truncate")
    with pytest.raises(ConfigError, match="rows must be at least 1"):
        PairsConfig(rows=0)
    both = make(data, tiny).drawing.lengths.reshape(-1, 2).sum(1)
    most = int(np.sort(both)[20])
    single = make(data, tiny, rows=1, length=most)
    assert single.count == (both <= most).sum()
    held = [pair for batch in single.once(range(single.count)) for pair in batch.pairs]
    assert sorted(held) == list(range(single.count))


def test_what_a_template_refuses_is_left_out(data, tiny):
    source = "{% for m in messages %}{% if '1 1' in m.content %}{{ raise_exception('no') }}"
    template = ChatTemplate(source + "{% endif %}{{ m.content }}|{% endfor %}")
    how = template, PairsConfig(rows=2, length=96), 0
    batches = PreferenceBatches(data, tiny.vocabulary, tiny.adapters, *how)
    refused = [c.place for c in data.conversations[1::2] if "1 1" in text_of(c)]
    assert refused and batches.skipped == [f"{place}: template: no" for place in refused]
    assert f"{len(refused)} that the template refuses" in batches.summary


def test_no_answer_sees_another(data, tiny):
    """The losses of a pair's tokens are those of each conversation alone in its batch."""
    batches = make(data, tiny)
    objective = Objective(tiny.backbone, tiny.vocabulary, alignment_weight=0)

    def losses(packed):
        hidden = tiny.backbone(*map(ms.Tensor, (*packed.planes, *packed.patches)))
        logits = objective.logits(hidden, ms.Tensor(packed.positions))
        return objective.cross_entropy(
            logits, ms.Tensor(packed.targets), ms.Tensor(packed.ranges)
        ).asnumpy()

    batch = batches(0)
    together = losses(batch.packed)
    for e, pair in enumerate(batch.pairs[:4]):
        for side in range(2):
            here = (batch.answers == 2 * e + side) & (batch.packed.weights > 0)
            one = batches.layouts.segment(batches.spans[2 * pair + side], np.random.default_rng(0))
            alone = losses(pack_into_rows([[one]], batches.shape, tiny.vocabulary))[: here.sum()]
            np.testing.assert_allclose(together[here], alone, atol=2e-5)
