"""All 31 subsets of the five modalities: laid out, trained on, embedded and generated from."""

from itertools import combinations

import mindspore as ms
import numpy as np
import pytest

from ascend.operators import AdamW
from taichu.data.layout import GROUPED, JOINT, Segment, Span
from taichu.data.packing import BatchShape, Layout, pack
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective
from taichu.training.step import TrainingStep

MODALITIES = ("text", "image", "audio", "video", "shape3d")
SUBSETS = [subset for n in range(1, 6) for subset in combinations(MODALITIES, n)]


@pytest.fixture(scope="module")
def step(tiny):
    """One compiled training step for all subsets, on parameters of its own."""
    ms.set_seed(7)
    backbone = Backbone(tiny.config, tiny.vocabulary.size, list(tiny.grids.values()))
    objective = Objective(backbone, tiny.vocabulary)
    return TrainingStep(objective, AdamW(objective.trainable_params(), 1e-3))


@pytest.fixture(scope="module")
def shape(tiny):
    patches = [(n, 8 * a.geometry.tokens, a.geometry.patch_size) for n, a in tiny.adapters.items()]
    return BatchShape(6, 96, 160, 2, tuple(patches))


def lay_out_sample(model, contents: dict, caption: int) -> list[Layout]:
    """A sample for all trainings its modalities allow: both sides of a pair, each observed and
    decoded from the other; and all of it decoded jointly."""

    def decoded(name):
        if name == "text":
            return Span("text", ids=np.array(model.vocabulary.encode(contents[name]), np.int32))
        ids = model.vocabulary.codes(name)
        where = model.adapters[name].geometry.coordinates()
        codes = ids.start + np.arange(len(where)) % len(ids)
        return Span(name, ids=codes.astype(np.int32), coordinates=where)

    names = list(contents)
    everything = Segment((), tuple(decoded(name) for name in names), JOINT)
    layouts = [Layout((everything,), 0, caption)]
    left, right = names[: len(names) // 2], names[len(names) // 2 :]
    if left:
        sides = [
            Segment(
                model.observe({name: contents[name] for name in seen}),
                (decoded(made[0]),),
                GROUPED,
                embedding=1,
            )
            for seen, made in ((left, right), (right, left))
        ]
        layouts.append(Layout(tuple(sides), 0, caption, aligned=True))
    return layouts


def subset_id(subset) -> str:
    return "+".join(subset)


def test_there_are_31():
    assert len(set(SUBSETS)) == 31


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_id)
def test_a_sample_of_just_these_trains_a_step(tiny, contents, step, shape, subset):
    layouts = []
    for caption in (0, 1):
        changed = {"text": f"{contents['text']} {caption}"}
        sample = {name: changed.get(name, contents[name]) for name in subset}
        layouts += lay_out_sample(tiny, sample, caption)
    batch, left = pack(layouts, shape, tiny.vocabulary)
    assert not left
    loss, parts, norm = (out.asnumpy() for out in step(*(ms.Tensor(a) for a in batch.arrays())))
    assert np.isfinite(loss).all() and np.isfinite(norm).all() and norm[0] > 0
    assert (parts[0] > 0) == (len(subset) > 1)  # the two pairs are each other's negatives
    decoded = [name for name, part in zip(MODALITIES, parts[2:]) if part > 0]
    # control tokens count as text, and joint decoding learns them
    assert set(decoded) == {"text", *subset}


def test_each_subset_is_embedded(tiny, contents):
    vectors = tiny.embed_many([{name: contents[name] for name in subset} for subset in SUBSETS])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    apart = np.abs(vectors[:, None] - vectors[None]).max(-1)
    assert apart[~np.eye(31, dtype=bool)].min() > 1e-4


@pytest.mark.parametrize("into", MODALITIES)
def test_each_subset_makes_every_modality(tiny, contents, into):
    conditions = [{name: contents[name] for name in subset} for subset in SUBSETS]
    made = generate(tiny, into, conditions, Sampling(temperature=1.0, pieces=6))
    assert len(made) == 31
    for result in made:
        if into == "text":
            assert all(i < tiny.vocabulary.pieces for i in result.ids)
        else:
            assert all(i in tiny.vocabulary.codes(into) for i in result.ids)
            assert result.grid.shape == tiny.adapters[into].geometry.shape
            assert np.isfinite(result.grid).all()
