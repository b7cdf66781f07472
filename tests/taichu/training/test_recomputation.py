"""Recomputed gradients against those of the whole graph."""

import mindspore as ms
import numpy as np
import pytest

from ascend.operators import AdamW
from taichu.config import CodecConfig, ModelConfig
from taichu.data.layout import GROUPED, JOINT, Segment
from taichu.data.packing import BatchShape, Layout, pack
from taichu.errors import ConfigError
from taichu.model.backbone import Backbone
from taichu.model.codec import Codec, CodecObjective
from taichu.training.objectives import Objective
from taichu.training.recomputation import RecomputedGradient
from taichu.training.stage import Stage
from taichu.training.step import TrainingStep

GRIDS = [(4, 6), (3, 4)]
SHAPE = BatchShape(3, 48, 96, 8, (("image", 16, 6), ("audio", 12, 4)))


def build(vocabulary, tied, experts=0):
    ms.set_seed(5)
    config = ModelConfig(
        width=16,
        depth=3,
        heads=2,
        key_value_heads=1,
        head_size=8,
        hidden=16,
        embedding=6,
        pieces=0,
        tied=tied,
        experts=experts,
    )
    return Objective(Backbone(config, vocabulary.size, GRIDS), vocabulary)


@pytest.fixture
def arrays(samples, vocabulary):
    """A batch of both decodings and of alignment, over both media."""
    layouts = []
    for n, modality in enumerate(["image", "audio"] * 3):
        text, media = samples.text(), samples.patches(modality)
        decoding = JOINT if n == 5 else GROUPED
        first = Segment((media,), (text,), decoding, embedding=1)
        second = Segment((text,), (samples.codes(modality),), decoding, embedding=1)
        layouts.append(Layout((first, second), n % 2, n, aligned=n < 5))
    batch, left = pack(layouts, SHAPE, vocabulary)
    assert len(left) < 3 and (batch.weights > 0).any()
    return [ms.Tensor(array) for array in batch.arrays()]


@pytest.mark.parametrize("tied, experts", [(True, 0), (False, 0), (True, 3)])
def test_gradients_are_those_of_the_whole_graph(seeded, vocabulary, arrays, tied, experts):
    objective = build(vocabulary, tied, experts)
    parameters = ms.ParameterTuple(objective.trainable_params()[::-1])  # any order
    whole = ms.value_and_grad(objective, None, parameters, has_aux=True)
    recomputed = RecomputedGradient(Stage(objective), parameters)

    def gradient(*arrays):
        return whole(*arrays)

    (loss, parts), expected = ms.jit(gradient)(*arrays)
    made = ms.jit(recomputed.construct)(None, None, *arrays)
    (scaled, same_loss, same_parts), _, actual = made
    assert float(scaled) == float(same_loss)
    assert float(same_loss) == pytest.approx(float(loss), rel=1e-6)
    np.testing.assert_allclose(same_parts.asnumpy(), parts.asnumpy(), rtol=1e-5)
    assert len(actual) == len(expected) == len(parameters)
    for parameter, a, b in zip(parameters, actual, expected):
        size = np.abs(b.asnumpy()).max()
        assert size > 0, parameter.name
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), atol=2e-6 * max(1, size))


def test_steps_are_the_same(seeded, vocabulary, arrays):
    made = []
    for recompute in (False, True):
        objective = build(vocabulary, True)
        optimizer = AdamW(objective.trainable_params(), 1e-2)
        step = TrainingStep(objective, optimizer, recompute=recompute)
        made.append([[float(x.asnumpy().ravel()[0]) for x in step(*arrays)] for _ in range(4)])
    np.testing.assert_allclose(made[1], made[0], rtol=1e-4)
    assert made[0][-1][0] < made[0][0][0]


def test_a_codec_is_refused(seeded):
    from modality_adapters.grid import GridGeometry

    codec = Codec(CodecConfig((4, 4), width=32, depth=1), GridGeometry((1, 4, 4, 1), (1, 2, 2)), 2)
    with pytest.raises(ConfigError, match="train.recompute: only the backbone's blocks"):
        Stage(CodecObjective(codec))
