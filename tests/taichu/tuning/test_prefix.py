"""Prefixes and prompts in packed rows and in rows continued token by token."""

import mindspore as ms
import numpy as np
import pytest

from taichu.data.layout import GROUPED, Segment
from taichu.data.packing import BatchShape, Layout, pack
from taichu.model.continuation import Continuation, continue_rows
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.prompt import PromptTuning
from taichu.tuning.tuned import tune
from tests.taichu.tuning.trial import SMALL, disturb

PATCHES = (("image", 20, 6), ("audio", 3, 4))


@pytest.mark.parametrize("method", [PTuningV2(places=5), PromptTuning(places=5)])
def test_every_segment_sees_it_as_if_it_stood_there_alone(method, trial, samples, vocabulary):
    backbone = trial().backbone
    tuned = tune(backbone, method)
    disturb(tuned.trained.values())
    segments = [
        Segment((samples.patches("image"),), (samples.text(3 + n),), GROUPED) for n in range(4)
    ]

    def hidden(parts, rows, length):
        layouts = [Layout((part,), 0, 0) for part in parts]
        batch, left = pack(layouts, BatchShape(rows, length, 40, 1, PATCHES), vocabulary)
        assert not left
        arrays = [ms.Tensor(a) for a in (*batch.planes, *batch.patches)]
        return backbone(*arrays).asnumpy().reshape(rows, length, -1), batch

    together, batch = hidden(segments, 2, 36)
    assert batch.segment.max() > 1
    found = 0
    for segment in segments:
        alone = hidden([segment], 1, len(segment))[0][0]
        for row, number in {(r, n) for r in range(2) for n in batch.segment[r] if n}:
            here = batch.segment[row] == number
            if here.sum() == len(segment):
                np.testing.assert_allclose(together[row][here], alone, atol=2e-5)
                found += 1
    assert found == len(segments)


@pytest.mark.parametrize("method", [PTuningV2(places=5), PromptTuning(places=5)])
def test_rows_continued_token_by_token_see_it(method, trial):
    backbone = trial().backbone
    disturb(tune(backbone, method).trained.values())
    ids = np.random.default_rng(0).integers(0, backbone.vocabulary_size, (2, 9)).astype(np.int32)
    coords = np.broadcast_to(np.arange(9, dtype=np.int32)[None, :, None], (2, 9, 3)).copy()
    zeros, patches = np.zeros_like(ids), [np.zeros((4, 6)), np.zeros((3, 4))]
    patches = [ms.Tensor(p, ms.float32) for p in patches]

    def planes(length):
        cut = ids[:, :length], zeros[:, :length], coords[:, :length], zeros[:, :length] + 1
        return [np.ascontiguousarray(plane) for plane in (*cut, zeros[:, :length])]

    whole = backbone(*map(ms.Tensor, planes(9)), *patches)
    expected = backbone.decode(whole).asnumpy().reshape(2, 9, -1)
    continuation = Continuation(backbone)

    class Condition:
        """The first six tokens of each row."""

    condition = Condition()
    condition.planes, condition.patches = planes(6), [p.asnumpy() for p in patches]
    # two rows continue each condition, alike
    step = continue_rows(continuation.read, continuation.step, condition, 4, 3)
    for made in range(3):
        place = np.repeat(coords[:, 6 + made], 2, axis=0)
        logits = step(np.repeat(ids[:, 6 + made], 2), place, made)
        np.testing.assert_allclose(logits, np.repeat(expected[:, 6 + made], 2, axis=0), atol=1e-4)


def test_prompts_start_as_vectors_of_ids(trial):
    backbone = trial().backbone
    tuned = tune(backbone, PromptTuning(places=7))
    table = backbone.table().asnumpy()[: backbone.vocabulary_size] * SMALL.width**0.5
    for vector in tuned.own["prompt_embeddings"].asnumpy():
        assert np.abs(table - vector).max(1).min() < 1e-6
