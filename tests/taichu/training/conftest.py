"""A batch that several objectives are tried on."""

import pytest

from taichu.data.layout import GROUPED, JOINT, Segment
from taichu.data.packing import BatchShape, Layout, pack


@pytest.fixture
def batch(samples, vocabulary):
    """Four pairs, and a place for a pair that is not there."""
    layouts = []
    for caption in range(4):
        kind = GROUPED if caption % 2 else JOINT
        sides = (
            Segment((samples.patches("image"),), (samples.text(),), kind, embedding=1),
            Segment((samples.text(),), (samples.codes("image"),), kind, embedding=1),
        )
        layouts.append(Layout(sides, 0, caption, aligned=True))
    shape = BatchShape(3, 64, 90, 5, (("image", 16, 6), ("audio", 3, 4)))
    packed, left = pack(layouts, shape, vocabulary)
    assert not left
    return packed
