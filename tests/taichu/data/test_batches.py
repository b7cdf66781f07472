"""Batches: each a function of its number alone, well filled, for any subset of modalities."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from taichu.config import load_size
from taichu.data.batches import Batches, MixtureConfig, parse_group
from taichu.data.digits.captions import parse
from taichu.data.prepared import prepare
from taichu.errors import ConfigError
from taichu.storage.model_folder import create_adapters
from taichu.tokenizer import train_tokenizer
from taichu.vocabulary import Vocabulary

ALL = ("text", "image", "audio", "video", "shape3d")
GROUPS = {"text-image": 3, "text-audio": 2, "text-video": 3, "text-shape3d": 3}
GROUPS["text-audio+image"] = 1


@pytest.fixture(scope="module")
def parts(digits, media_cache, tmp_path_factory):
    """What `Batches` is made of: data, vocabulary, adapters, codes."""
    size = load_size("nano")
    data = prepare(digits, "train", size.modalities, media_cache)
    texts = [text for sample in data.samples for _, text in sample.texts]
    tokenizer = train_tokenizer(texts, size.pieces, tmp_path_factory.mktemp("tokenizer"))
    counts = {name: codec.codes for name, codec in size.codecs.items()}
    adapters = create_adapters(size)
    random = np.random.default_rng(1)
    codes = {
        name: random.integers(0, counts[name], (len(grids), adapters[name].geometry.tokens))
        for name, grids in data.grids.items()
    }
    return data, Vocabulary(tokenizer, counts), adapters, codes


def make(parts, seed=0, groups=GROUPS, **settings) -> Batches:
    return Batches(*parts, MixtureConfig(groups, **settings), seed)


def test_a_batch_depends_on_its_number_alone(parts):
    one, other = make(parts), make(parts)
    expected = {k: one(k).arrays() for k in (0, 1, 7)}
    for k in (7, 0, 1, 7):
        for a, b in zip(other(k).arrays(), expected[k]):
            np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(expected[0], expected[1]))
    changed = make(parts, seed=1)(0).arrays()
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(changed, expected[0]))


def test_shapes_stay_and_padding_is_under_a_tenth(parts):
    batches = make(parts)
    made = [batches(k) for k in range(8)]
    assert len({tuple(a.shape for a in batch.arrays()) for batch in made}) == 1
    assert np.mean([batch.padding for batch in made]) < 0.1


def test_a_group_goes_through_its_samples_before_it_repeats_one(parts):
    batches = make(parts)
    members = batches.members[0]
    epoch = [batches._sample(0, i) for i in range(len(members))]
    assert sorted(epoch) == sorted(members)
    again = [batches._sample(0, len(members) + i) for i in range(len(members))]
    assert sorted(again) == sorted(members) and again != epoch


def test_groups_take_turns_as_their_shares_say(parts):
    batches = make(parts, groups={"text-image": 3, "text-video": 1}, rows=4)
    turns = [batches.turn(k) for k in range(40)]
    assert sorted(turns) == [(0, i) for i in range(30)] + [(1, i) for i in range(10)]
    for k in range(0, 40, 4):
        assert sum(group == 0 for group, _ in turns[k : k + 4]) == 3
    assert make(parts, groups={"text-image": 3, "text-video": 1}, rows=4).turn(39) == turns[39]


def test_a_batch_is_of_one_group_and_observes_captions_of_one_number(parts):
    """Whole captions and the digit alone in turn; what is decoded is always the whole caption."""
    data, vocabulary, _, _ = parts
    batches = make(parts, groups={"text-image": 1, "text-video": 1}, joint_weight=0, rows=6)
    ends = vocabulary.close("text")
    for k in range(4):
        group, turn = batches.turn(k)
        batch, medium = batches(k), ("image", "video")[group]
        used = batch.pair_group >= 0
        assert set(batch.pair_group[used]) == {group}
        known = {
            text for i in batches.members[group] for _, text in data.samples[i].captions(turn % 2)
        }
        wanted = {text for i in batches.members[group] for _, text in data.samples[i].captions(0)}
        observed, decoded = [], []
        for number in range(1, 2 * int(used.sum()), 2):
            ids = batch.ids[batch.pool == number]
            if ids.size and ids[0] < vocabulary.pieces:
                observed.append(vocabulary.decode(ids))
        text, said = (batch.weights > 0) & (batch.targets <= vocabulary.pieces), []
        for target in batch.targets[text]:
            if target == ends:
                decoded.append(vocabulary.decode(said))
                said = []
            else:
                said.append(target)
        assert len(observed) > 3 and len(decoded) > 3
        assert set(observed) <= known and set(decoded) <= wanted
        short = [parse(text) == {"digit": parse(text)["digit"]} for text in observed]
        assert all(short) if turn % 2 else sum(short) < len(short) / 2
        assert batch.patches[list(parts[2]).index(medium)].any()


def test_targets_are_the_data(parts):
    """What a decoded text segment is to say, said by the sample."""
    data, vocabulary, _, _ = parts
    batches = make(parts, groups={"text-image": 1}, joint_weight=0, rows=4)
    batch = batches(0)
    text = (batch.weights > 0) & (batch.targets <= vocabulary.pieces)
    said = [[]]
    for target in batch.targets[text]:
        if target == vocabulary.close("text"):
            said.append([])
        else:
            said[-1].append(target)
    known = {text for sample in data.samples for _, text in sample.captions(0)}
    assert len(said) > 5 and not said[-1]
    assert all(vocabulary.decode(ids) in known for ids in said[:-1])


def test_trainings_are_left_out(parts):
    alignment = make(parts, grouped_weight=0, joint_weight=0, rows=8)(0)
    assert not alignment.weights.any() and (alignment.pair_group >= 0).any()
    grouped = make(parts, alignment_weight=0, joint_weight=0, rows=8)
    batch = grouped(0)
    assert not batch.pool.any() and (batch.pair_group < 0).all()
    assert batch.weights.sum() == pytest.approx(1, abs=1e-5)
    used = batch.weights > 0
    whole = (batch.ranges[used] == [0, parts[1].size]).all(1)
    assert not whole.any()
    joint = make(parts, alignment_weight=0, grouped_weight=0, rows=8)(0)
    used = joint.weights > 0
    assert (joint.ranges[used] == [0, parts[1].size]).all()
    with pytest.raises(ConfigError, match="nothing would be learned"):
        make(parts, alignment_weight=0, grouped_weight=0, joint_weight=0)


SUBSETS = [subset for n in range(2, 6) for subset in combinations(ALL, n)]


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_of_modalities(parts, subset):
    name = f"{subset[0]}-{'+'.join(subset[1:])}"
    batches = make(parts, groups={name: 1.0}, rows=8, augment=0.0)
    batch = batches(0)
    media = list(parts[2])
    for modality, patches in zip(media, batch.patches):
        assert patches.any() == (modality in subset)
    assert (batch.pair_group >= 0).any() and batch.padding < 0.5


def test_languages(parts):
    data, vocabulary, _, _ = parts
    batches = make(parts, groups={"text-image": 1}, languages=("zh",), rows=4)
    chinese = {text for sample in data.samples for code, text in sample.texts if code == "zh"}
    said = {vocabulary.decode(ids) for sample in batches.pieces for of in sample for ids in of}
    assert said == chinese


def test_a_sample_without_text_in_the_languages_is_not_drawn(parts):
    data = parts[0]
    english = [replace(s, texts=s.texts[:2]) for s in data.samples[:20]] + data.samples[20:]
    changed = (replace(data, samples=english), *parts[1:])
    batches = make(changed, groups={"text-image": 1}, languages=("zh",), rows=4)
    assert batches.members[0].min() == 20
    with pytest.raises(ConfigError, match="text-image: no sample of the data holds all of it"):
        make(changed, groups={"text-image": 1}, languages=("fr",))


@pytest.mark.parametrize(
    "groups, settings, message",
    [
        ({"text": 1}, {}, "mixture.groups.text: a group is written left-right, as text-image"),
        ({"text-imgae": 1}, {}, "unknown modality 'imgae'; did you mean 'image'?"),
        ({"text-image": 1}, {"rows": 1, "length": 30}, "a batch of 1 x 30 does not hold a sample"),
    ],
)
def test_wrong_groups(parts, groups, settings, message):
    with pytest.raises(ConfigError) as caught:
        make(parts, groups=groups, **settings)
    assert message in str(caught.value)


def test_parse_group():
    assert parse_group("text-audio+image", ALL) == (("text",), ("audio", "image"))
