"""Numbers of parameters against real models, and shares of them."""

import math
from dataclasses import replace

import pytest
from mindspore.nn.utils import no_init_parameters

from ascend.device_matrix import ParallelConfig
from taichu.model.backbone import Backbone
from taichu.plan.parameters import Held, all_parameters, count_active, count_by_part
from taichu.plan.workload import stages


@pytest.mark.parametrize("model", ["nano", "tiny", "base", "3.8b"])
def test_every_parameter_is_counted(read_workload, model):
    check(read_workload(f"model={model}"))


@pytest.mark.parametrize(
    "changes", [{"bias": True}, {"query_key_norm": False}, {"tied": True}, {"experts": 3}]
)
def test_other_models(read_workload, changes):
    work = read_workload("model=nano")
    check(replace(work, size=replace(work.size, **changes)))


def check(work):
    with no_init_parameters():
        backbone = Backbone(work.size, work.vocabulary, list(work.grids))
    real = list(backbone.get_parameters())
    counted = all_parameters(work)
    assert sorted(p.shape for p in counted) == sorted(tuple(p.shape) for p in real)
    assert sum(p.count for p in counted if p.trained) == sum(
        math.prod(p.shape) for p in backbone.trainable_params()
    )
    blocks = sum(math.prod(p.shape) for p in backbone.blocks.get_parameters())
    found = count_by_part(work)
    norms = found["norms"] - work.size.width
    assert found["attention"] + found["feed-forward"] + norms == blocks


def test_a_token_meets_the_experts_that_it_chooses(read_workload):
    work = read_workload("model=nano")
    dense = sum(count_by_part(work).values())
    assert count_active(work) == dense
    size = replace(work.size, experts=8, active_experts=3)
    mixture = replace(work, size=size)
    of_expert, router = 3 * 128 * 256, 8 * 128 + 8
    assert sum(count_by_part(mixture).values()) == dense + 4 * (7 * of_expert + router)
    assert count_active(mixture) == dense + 4 * (2 * of_expert + router)


def test_shares_of_ranks(read_workload):
    """Matrices of blocks are halved by two tensor ranks; what four replicas can share, they do."""
    work = read_workload("model=nano")
    (stage,) = stages(work.size, ParallelConfig())
    whole = Held(work, ParallelConfig(), stage, 1)
    layout = ParallelConfig(tensor=2, sequence=2, shard="parameters")
    share = Held(work, layout, stage, 4)
    in_blocks = 4 * (4 * 128 * 128 + 3 * 128 * 256)
    assert whole.own(whole.trained) - sum(p.count for p in share.trained) == in_blocks // 2
    projection, patches = 128 * 128, 128 * (192 + 128 + 1536 + 216)
    sharded = in_blocks // 2 + projection + patches
    assert sum(p.count for p in share.trained) - share.own(share.trained) == sharded * 3 // 4
    # the id tables have an odd number of rows; grids' places and digits have rows to share
    places, digits = 128 * (3 * 16), 2 * 128 * 60
    updated_alone = sum(p.count for p in share.trained) - sharded - places - digits
    assert share.updated() == updated_alone + (sharded + places + digits) // 4


def test_stages_share_the_blocks(read_workload):
    work = read_workload("model=tiny")
    assert work.size.tied and work.size.depth == 11
    work = replace(work, size=replace(work.size, depth=12))
    layout = ParallelConfig(pipeline=3)
    first, last = (Held(work, layout, stage, 1) for stage in stages(work.size, layout))
    assert first.stage.blocks == last.stage.blocks == 4
    table = (work.vocabulary + work.digits) * work.size.width
    both = sum(p.count for p in first.trained + last.trained)
    middle = 4 * sum(p.count for p in first.block)
    measured = sum(p.count for p in first.measured)
    assert both + middle + measured - table == sum(count_by_part(work).values())


def test_the_id_tables_of_large_models_are_shared_out(read_workload):
    """The number of their ids is odd: they are filled up, by less than a hundredth."""
    for model, least in (("base", 49_517), ("3.8b", 103_487)):
        work = read_workload(f"model={model}")
        assert least <= work.vocabulary < 1.01 * least
        (stage,) = stages(work.size, ParallelConfig())
        held = Held(work, ParallelConfig(shard="parameters"), stage, 64)
        (table,) = (p for p in held.trained if p.part == "id table" and p.shape[0] > 1000)
        assert table.shape[0] == work.vocabulary and held.own([table]) == table.count // 64
