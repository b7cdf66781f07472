"""What each stage of a pipeline holds of a model."""

import mindspore as ms
import numpy as np
import pytest

from ascend import device_matrix
from ascend.device_matrix import DeviceMatrixError, ParallelConfig, lay_out_ranks
from ascend.ranks import Ranks
from taichu.config import CodecConfig, ModelConfig
from taichu.model.backbone import Backbone
from taichu.model.stage_parts import Elsewhere, gather_tensors, keep, shapes_elsewhere
from taichu.storage.checkpoint import named_parameters

SIZES = {"width": 16, "depth": 4, "heads": 2, "key_value_heads": 1, "head_size": 8, "hidden": 16}
SIZES |= {"embedding": 6, "pieces": 0}
MEDIA = {"modalities": {"image": {}}, "codecs": {"image": CodecConfig((4, 2))}}


@pytest.fixture
def build(monkeypatch, seeded):
    """build(stage, of, tied): the backbone of one of so many stages."""

    def build(stage: int, of: int, tied: bool = True) -> Backbone:
        matrix = lay_out_ranks(ParallelConfig(pipeline=of), Ranks(stage, of))
        monkeypatch.setitem(device_matrix._chosen, "matrix", matrix)
        ms.set_seed(3)
        return Backbone(ModelConfig(**SIZES, **MEDIA, tied=tied), 60, [(4, 6)])

    return build


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stages", [2, 4])
def test_stages_hold_what_the_whole_model_starts_with(build, stages, tied):
    whole = named_parameters(build(0, 1, tied))
    found = []
    for stage in range(stages):
        backbone = build(stage, stages, tied)
        held, elsewhere = named_parameters(backbone), shapes_elsewhere(backbone)
        assert held.keys() | elsewhere.keys() == whole.keys() and not held.keys() & elsewhere.keys()
        for name, parameter in held.items():
            np.testing.assert_array_equal(parameter.asnumpy(), whole[name].asnumpy())
        for name, shape in elsewhere.items():
            assert shape == whole[name].shape
        found += held
    twice = {name for name in found if found.count(name) == 2}
    assert twice == ({"table.own", "table.digits"} if tied else set())
    assert {name.split(".")[1] for name in held if name.startswith("blocks")} == {
        str(n) for n in range(4 - 4 // stages, 4)
    }


def test_without_stages_nothing_is_elsewhere(build):
    backbone = build(0, 1)
    assert shapes_elsewhere(backbone) == {}
    tensors = gather_tensors(backbone)
    for name, parameter in named_parameters(backbone).items():
        np.testing.assert_array_equal(tensors[name], parameter.asnumpy())


def test_a_single_parameter_may_be_elsewhere(build):
    build(1, 2)
    assert isinstance(keep(ms.Parameter(np.zeros(3, np.float32)), 0), Elsewhere)
    assert keep(ms.Parameter(np.zeros(3, np.float32)), 1).stages == (1,)


def test_stages_must_share_the_blocks(build):
    with pytest.raises(
        DeviceMatrixError, match="parallel.pipeline: 3 ranks cannot share blocks of 4"
    ):
        build(0, 3)
