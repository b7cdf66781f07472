"""The batch that methods are tried on: captions to be written of pictures."""

import pytest

from taichu.data.layout import GROUPED, Segment
from taichu.data.packing import BatchShape, Layout, pack
from tests.taichu.tuning.trial import SMALL, Trial


@pytest.fixture
def trial(cpu, samples, vocabulary):
    """Makes a `Trial`; all of one test are of the same batch."""
    layouts = []
    for caption in range(5):
        caption_of = Segment((samples.patches("image"),), (samples.text(4),), GROUPED)
        layouts.append(Layout((caption_of,), 0, caption))
    shape = BatchShape(2, 40, 32, 1, (("image", 20, 6), ("audio", 3, 4)))
    batch, left = pack(layouts, shape, vocabulary)
    assert not left and batch.segment.max() > 1
    return lambda config=SMALL: Trial(batch, vocabulary, config)
