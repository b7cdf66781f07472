"""Batches of conversations over real files: all of it is there once an epoch, and in its place."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from ascend.device_matrix import Axis
from taichu.config import build, load_size
from taichu.data import prepared
from taichu.data.conversations.batches import ConversationBatches, ConversationsConfig
from taichu.data.conversations.prepared import ConversationFile, prepare_conversations
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.data.manifest import read_manifest
from taichu.errors import ConfigError, ConversationError
from taichu.storage.model_folder import create_adapters
from tests.taichu.data.conversations.conftest import CHATML

SIZE = load_size("nano")


@pytest.fixture(scope="module")
def adapters():
    return create_adapters(SIZE)


@pytest.fixture(scope="module")
def rows(digits):
    """Files of the digits asked about; every fifth row about two of a kind."""
    samples = read_manifest(digits, SIZE.modalities)
    chosen = [s for m in SIZE.modalities for s in [s for s in samples if m in s.media][:12]]
    made = []
    for number, sample in enumerate(chosen):
        (name, path), *_ = sample.media.items()
        files = [str(path.relative_to(digits.parent))]
        other = chosen[number - 1].media.get(name)
        if number % 5 == 0 and other:
            files.append(str(other.relative_to(digits.parent)))
        turns = [
            {"role": "user", "content": f"<{name}>" * len(files) + f"{number}?"},
            {"role": "assistant", "content": f"{sample.captions(0)[0][1]}"},
        ]
        turns += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"}]
        column = "shapes" if name == "shape3d" else f"{name}s"
        made.append({"messages": turns[: 2 + 2 * (number % 2)], column: files})
    return made


@pytest.fixture(scope="module")
def data(rows, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversations")
    (folder / "broken.png").write_text("no picture")
    path = digits.parent / "broken.png"
    lines = [json.dumps(row) for row in rows]
    ask, say = {"role": "user", "content": "<image>"}, {"role": "assistant", "content": "x"}
    lines.insert(1, json.dumps({"messages": [ask, say], "images": ["no.png"]}))
    lines.insert(3, "{")
    path = folder / "x.jsonl"
    path.write_text("\n".join(lines))
    file = ConversationFile(str(path), folder=str(digits.parent))
    return prepare_conversations((file,), SIZE.modalities, folder / "cache", workers=1)


def make(data, vocabulary, adapters, template=DEFAULT, seed=0, axis=None, **settings):
    config = ConversationsConfig(**{"rows": 3, "length": 160} | settings)
    template = ChatTemplate(template)
    return ConversationBatches(data, vocabulary, adapters, template, config, seed, axis)


@pytest.fixture(scope="module")
def nano(tokenizer):
    from taichu.vocabulary import Vocabulary

    return Vocabulary(tokenizer, {name: codec.codes for name, codec in SIZE.codecs.items()})


def test_bad_rows_are_left_out_and_listed(data, rows):
    assert len(data.conversations) == len(rows)
    assert len(data.skipped) == 2
    place = data.conversations[0].place.removesuffix(":1")
    assert data.skipped[0] == f"{place}:4: not a JSON object"
    assert data.skipped[1].startswith(f"{place}:2: ")
    assert data.skipped[1].endswith("no.png: no such file")
    assert data.formats == [f"{place}: messages: 1 has 'messages'"]


def test_media_are_read_once(data, digits, monkeypatch, tmp_path):
    folder = data.conversations[0].place.rsplit("/", 1)[0]
    monkeypatch.setattr(prepared, "_read_all", None)
    file = ConversationFile(f"{folder}/x.jsonl", folder=str(digits.parent))
    again = prepare_conversations((file,), SIZE.modalities, f"{folder}/cache", workers=1)
    assert again.skipped == data.skipped and again.conversations == data.conversations
    for name, rows in data.media.rows.items():
        files = {file for c in data.conversations for m, file in c.media if m == name}
        assert {file for file in rows if file not in data.media.bad} == files
        assert len(set(rows.values())) == len(rows) == len(data.media.grids[name])


def segments(batch):
    """(row, slice) of each."""
    for row, numbers in enumerate(batch.segment):
        for number in range(1, numbers.max() + 1):
            places = np.flatnonzero(numbers == number)
            assert (np.diff(places) == 1).all()
            yield row, slice(places[0], places[-1] + 1)


def spoken(batch, vocabulary):
    """(number, answers, media) of each conversation of a batch, read off its arrays."""
    flat = {int(p): int(t) for p, t, w in zip(batch.positions, batch.targets, batch.weights) if w}
    close = vocabulary.close("text")
    stacked = [p for patches in batch.patches for p in patches]
    for row, part in segments(batch):
        start = row * batch.ids.shape[1]
        said = [flat.get(start + place, -1) for place in range(part.start, part.stop)]
        answers, words = [], []
        for target in said:
            if target == close:
                answers.append(vocabulary.decode(words))
                words = []
            elif target >= 0:
                words.append(target)
        assert not words
        ids = batch.ids[row, part]
        text = vocabulary.decode([int(i) for i in ids])
        seen = [stacked[s - 1] for s in batch.source[row, part] if s]
        yield text, answers, np.concatenate(seen) if seen else None


def test_a_batch_holds_conversations_whole_and_where_they_belong(data, nano, adapters):
    batches = make(data, nano, adapters)
    expected = {}
    for conversation in data.conversations:
        text = "".join(
            f"user: {v}\n" if t.role == "user" else v
            for t in conversation.turns
            for v in ["".join(v for m, v in t.parts if m == "text")]
        )
        patches = [
            adapters[m].geometry.patchify(adapters[m].read(file)).reshape(-1)
            for m, file in conversation.media
        ]
        answers = [t.parts[0][1] for t in conversation.turns if t.learned]
        expected[text] = answers, np.concatenate(patches)
    assert len(expected) == len(data.conversations)
    found = Counter()
    for k in count():
        batch = batches(k)
        assert batch.weights.sum() == pytest.approx(1, abs=1e-5)
        assert len(set(batch.weights[batch.weights > 0])) == 1
        assert set(map(tuple, batch.ranges[batch.weights > 0])) == {(0, nano.pieces + 1)}
        for text, answers, seen in spoken(batch, nano):
            wanted, patches = expected[text]
            assert answers == wanted
            np.testing.assert_allclose(seen, patches, atol=2e-3)
            found[text] += 1
        if len(found) == len(expected) or k > 50:
            break
    assert found.keys() == expected.keys()


def test_a_batch_depends_on_its_number_alone(data, nano, adapters):
    one, other = make(data, nano, adapters, augment=0.5), make(data, nano, adapters, augment=0.5)
    expected = {k: one(k).arrays() for k in (0, 1, 6)}
    for k in (6, 0, 1, 6):
        for a, b in zip(other(k).arrays(), expected[k]):
            np.testing.assert_array_equal(a, b)
    for changed in (expected[1], make(data, nano, adapters, seed=1)(0).arrays()):
        assert any(a.shape != b.shape or (a != b).any() for a, b in zip(changed, expected[0]))


def test_epochs_are_permutations_and_rows_are_full(data, nano, adapters):
    batches = make(data, nano, adapters)
    shapes = {tuple(a.shape for a in batches(k).arrays()) for k in range(20)}
    assert len(shapes) == 1
    drawn = batches.drawing.numbers()
    epochs = [[next(drawn) for _ in batches.spans] for _ in range(3)]
    assert all(sorted(epoch) == list(range(len(batches.spans))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # none waits for long: in 20 batches each comes nearly as often as any other
    seen = Counter(i for k in range(20) for row in batches.drawing.rows_of(k) for i in row)
    assert max(seen.values()) - min(seen.values()) <= 5
    batches = make(data, nano, adapters, length=480)
    assert np.mean([batches(k).padding for k in range(20)]) < 0.05


def test_ranks_share_out_the_batches(data, nano, adapters):
    alone = make(data, nano, adapters)
    for index in range(2):
        rank = make(data, nano, adapters, axis=Axis("data", (0, 1), index))
        for k in range(3):
            for a, b in zip(rank(k).arrays(), alone(2 * k + index).arrays()):
                np.testing.assert_array_equal(a, b)


def test_overlong_conversations_are_counted(data, nano, adapters):
    lengths = sorted(make(data, nano, adapters).drawing.lengths)
    most = int(lengths[len(lengths) // 2])
    longer = sum(length > most for length in lengths)
    skipping = make(data, nano, adapters, length=most)
    assert len(skipping.spans) == len(lengths) - longer
    assert skipping.overlong == longer == len(skipping.skipped)
    assert f"{longer} left out; 0 left out that the template refuses" in skipping.summary
    assert f" tokens are more than length={most}" in skipping.skipped[0]
    cutting = make(data, nano, adapters, length=most, overlong="truncate")
    assert len(cutting.spans) == len(lengths) - cutting.overlong
    assert cutting.truncated + cutting.overlong == longer and cutting.truncated
    assert f": {cutting.truncated} cut, {cutting.overlong} left out; " in cutting.summary
    for k in range(4):
        assert cutting(k).weights.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(
        ConversationError, match=rf"x.jsonl:\d+: \d+ tokens are more than .*={most}"
    ):
        make(data, nano, adapters, length=most, overlong="error")
    with pytest.raises(ConversationError, match="no conversation can be used; .*length=8"):
        make(data, nano, adapters, length=8)


def test_what_a_template_refuses_is_left_out(data, nano, adapters):
    refusing = (
        "{% for m in messages %}{% if loop.index > 2 %}{{ raise_exception('too many') }}"
        "{% endif %}{{ m.content }}|{% endfor %}"
    )
    batches = make(data, nano, adapters, refusing)
    assert len(batches.spans) == len(data.conversations) // 2 == len(batches.skipped)
    assert all(line.endswith(": template: too many") for line in batches.skipped)
    assert batches.summary.endswith(f"{len(batches.skipped)} left out that the template refuses")


def test_a_published_template(data, published, adapters):
    """The text between the media is the published sequence."""
    from tests.taichu.data.conversations.conftest import PublishedVocabulary

    codes = {name: codec.codes for name, codec in SIZE.codecs.items()}
    vocabulary = PublishedVocabulary(published.tokenizer, codes)
    batch = make(data, vocabulary, adapters, CHATML, length=256)(0)
    end, opened = vocabulary.encode("<|im_end|>")[0], vocabulary.encode("<|im_start|>")[0]
    assert not np.isin(batch.ids, [vocabulary.open("text"), vocabulary.close("text")]).any()
    learned = batch.targets[batch.weights > 0]
    assert (learned == end).sum() > 3 and opened not in learned
    # the softmax is the published model's
    assert set(map(tuple, batch.ranges[batch.weights > 0])) == {(0, vocabulary.pieces)}
    for row, part in segments(batch):
        assert batch.ids[row, part][0] == opened
        assert vocabulary.decode(batch.ids[row, part][-1:]) == "\n"


def test_settings():
    config = build(ConversationsConfig, {"rows": 4, "overlong": "truncate"})
    assert config == replace(ConversationsConfig(), rows=4, overlong="truncate")
    with pytest.raises(ConfigError, match="overlong: 'cut' is none of skip, truncate, error"):
        ConversationsConfig(overlong="cut")
    files = build(ConversationFile, {"path": "x", "questions": {"image": {"en": "?"}}})
    assert files.questions == {"image": {"en": "?"}}


def test_no_usable_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"image": "no.png", "question": "?", "answer": "x"}\n')
    with pytest.raises(ConversationError, match="x.jsonl: no usable row; .*:1: .*no such file"):
        prepare_conversations((ConversationFile(str(path)),), SIZE.modalities, tmp_path / "cache")
