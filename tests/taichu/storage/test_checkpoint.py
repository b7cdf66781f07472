"""Parameters take tensors' values, and every wrong tensor is named."""

import mindspore as ms
import numpy as np
import pytest

from taichu.errors import CheckpointError
from taichu.storage.checkpoint import as_tensors, load_parameters, named_parameters


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bias": None}, "x: tensor 'bias' is missing"),
        ({"scale": np.ones(2)}, "x: tensor 'scale' is not part of this model"),
        ({"bias": np.ones(3)}, r"x: tensor 'bias' has shape \[3\], the model wants \[2\]"),
    ],
)
def test_wrong_tensors_are_named(seeded, change, message):
    parameters = named_parameters(ms.nn.Dense(3, 2))
    tensors = {**as_tensors(parameters), **change}
    with pytest.raises(CheckpointError, match=message):
        load_parameters(parameters, {n: v for n, v in tensors.items() if v is not None}, "x")


def test_parameters_take_their_values(seeded):
    one, other = ms.nn.Dense(3, 2), ms.nn.Dense(3, 2)
    load_parameters(named_parameters(other), as_tensors(named_parameters(one)), "x")
    np.testing.assert_array_equal(other.weight.asnumpy(), one.weight.asnumpy())
