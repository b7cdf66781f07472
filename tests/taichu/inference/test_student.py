"""A student starts as its teacher made smaller."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from taichu import Taichu
from taichu.errors import ConfigError
from taichu.inference.student import blocks_taken, make_student
from taichu.storage.checkpoint import named_parameters


@pytest.mark.parametrize(
    "depth, of, expected",
    [
        (6, 12, [0, 2, 4, 7, 9, 11]),
        (2, 4, [0, 3]),
        (3, 4, [0, 2, 3]),
        (1, 5, [0]),
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_blocks_are_taken_evenly(depth, of, expected):
    assert blocks_taken(depth, of) == expected


@pytest.fixture(scope="module")
def teacher(tiny):
    """Four blocks, every parameter drawn."""
    ms.set_seed(5)
    made = Taichu(replace(tiny.config, depth=4), tiny.vocabulary.tokenizer)
    random = np.random.default_rng(6)
    for parameter in made.backbone.get_parameters():
        drawn = random.uniform(0.5, 1.5, parameter.shape)
        parameter.set_data(ms.Tensor(drawn, ms.float32))
    return made


def test_fewer_blocks_are_the_teacher_s_bit_for_bit(teacher, contents, tmp_path):
    student = make_student(teacher, {"depth": 2})
    theirs = named_parameters(teacher.backbone)
    ours = named_parameters(student.backbone)
    assert sum(name.startswith("blocks.") for name in ours) > 10
    for name, parameter in ours.items():
        source = name.replace("blocks.1.", "blocks.3.")
        assert (parameter.asnumpy() == theirs[source].asnumpy()).all(), name
        assert parameter is not theirs[source]
    student.save_pretrained(tmp_path)
    back = Taichu.from_pretrained(tmp_path)
    assert back.config.depth == 2 and list(back.adapters) == list(teacher.adapters)
    grid = contents["image"][None]
    assert (back.encode_grids("image", grid) == teacher.encode_grids("image", grid)).all()


def test_what_has_another_shape_is_drawn(teacher):
    student = make_student(teacher, {"hidden": 40, "depth": 3})
    theirs = named_parameters(teacher.backbone)
    new = set()
    for name, parameter in named_parameters(student.backbone).items():
        source = name
        for own, taken in ((2, 3), (1, 2)):
            if name.startswith(f"blocks.{own}."):
                source = name.replace(f"blocks.{own}.", f"blocks.{taken}.")
        same = parameter.shape == theirs[source].shape
        if same:
            assert (parameter.asnumpy() == theirs[source].asnumpy()).all(), name
        else:
            new.add(name)
            drawn = parameter.asnumpy()  # the teacher's have no negative number
            assert drawn.min() < 0 < drawn.max() and drawn.std() < 0.5
    parts = ("gate", "up", "down")
    assert new == {f"blocks.{n}.feed_forward.{part}.weight" for n in range(3) for part in parts}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dept": 2}, "student.dept: unknown key; did you mean 'depth'"),
        ({"depth": "two"}, "student.depth: must be int, not 'two'"),
        ({"depth": 5}, "student.depth=5 must be from 1 to the teacher's 4"),
        ({"depth": 0}, "student.depth=0 must be from 1"),
        ({"pieces": 100}, "student.pieces: must stay the teacher's"),
        ({"codecs": {}}, "student.codecs: must stay the teacher's"),
        ({"modalities": {}}, "student.modalities: must stay the teacher's"),
        ({"key_value_heads": 3}, "key_value_heads=3 must divide heads=2"),
    ],
)
def test_refusals(teacher, changes, message):
    with pytest.raises(ConfigError) as caught:
        make_student(teacher, changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
