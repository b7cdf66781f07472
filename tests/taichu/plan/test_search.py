"""Which layouts are possible, which fit, and what is said where none does."""

from dataclasses import replace

import pytest

from ascend.device_matrix import DeviceMatrixError, ParallelConfig
from ascend.rates import DeviceTypeError, device_types, find_device_type
from taichu.command_line.train import load_recipe
from taichu.errors import ConfigError
from taichu.plan import workload_of
from taichu.plan.memory import USABLE
from taichu.plan.search import PlanError, find_plans, make_plan, possible_layouts
from taichu.plan.step_time import step_time

B2 = find_device_type("910B")
LARGE = "model=3.8b", "mixture.rows=2", "mixture.length=4096"


@pytest.fixture(scope="module")
def large(read_workload):
    return read_workload(*LARGE)


def test_layouts_divide_what_they_share(large):
    size, found = large.size, possible_layouts(large, 64, B2)
    assert ParallelConfig() in found and ParallelConfig(8, 1, 1, "optimizer") in found
    assert len(set(found)) == len(found)
    for layout in found:
        assert 64 % (layout.tensor * layout.sequence * layout.pipeline) == 0
        assert layout.tensor <= B2.node
        assert size.key_value_heads % (layout.tensor * layout.sequence) == 0


def test_plans_fit_and_are_in_order(large):
    plans = find_plans(large, 64, B2)
    assert all(plan.memory.peak <= B2.memory * USABLE for plan in plans)
    speeds = [round(plan.time.tokens_a_second) for plan in plans]
    assert speeds == sorted(speeds, reverse=True)
    tried = possible_layouts(large, 64, B2)
    fitting = sum(
        make_plan(large.recomputed(again), layout, 64, B2).fits
        for layout in tried
        for again in (False, True)
    )
    assert len(plans) == fitting < 2 * len(tried)


def test_where_nothing_fits(large):
    small = find_device_type("910B4")
    with pytest.raises(PlanError, match="nothing fits.* needs .* of the 32.2 GB .* most of it mom"):
        find_plans(large, 1, small)
    rows = replace(large, batch=replace(large.batch, rows=400))
    with pytest.raises(PlanError, match="most of it activations .*; lower mixture.rows"):
        find_plans(rows, 64, B2)


@pytest.mark.parametrize("devices", [0, -8, 12, 100])
def test_impossible_numbers_of_devices(large, devices):
    with pytest.raises(PlanError, match=f"--devices {devices}: .*(must be 1 or more|multiple)"):
        find_plans(large, devices, B2)


def test_impossible_layouts():
    with pytest.raises(
        DeviceMatrixError, match="tensor=3 times sequence=1 .* must divide the 8 ranks"
    ):
        ParallelConfig(tensor=3).data(8)
    with pytest.raises(DeviceMatrixError, match="parallel.shard: must be one of none, optimizer"):
        ParallelConfig(shard="all")
    with pytest.raises(DeviceMatrixError, match="parallel.pipeline: must be 1 or more"):
        ParallelConfig(pipeline=0)


def test_device_types(read_workload):
    assert find_device_type("Ascend910_9391").name == "A3"
    assert find_device_type("ascend910b3").name == "910B3"
    with pytest.raises(DeviceTypeError, match="'910X' is unknown; there are 910A, 910B1, .*, CPU"):
        find_device_type("910X")
    with pytest.raises(DeviceTypeError, match="910A has no products in float32; take float16"):
        read_workload("precision=float32", device="910A")
    for device in device_types().values():
        assert device.peak(device.number_type) > 1e11
        assert 0 < device.products_reached < 1 and 0 < device.links_reached < 1
    trained = {name for name, device in device_types().items() if device.trains}
    assert trained == {"910A", "910B1", "910B2", "910B3", "910B4", "A3", "CPU"}
    work = read_workload(device="910A")
    assert work.number_type == "float16" and not work.flash


def test_utilisation_of_one_device(read_workload):
    """Alone, nothing is sent: utilisation is the assumed share of the peak, but for what is
    computed and not needed, and the update."""
    work = read_workload("model=base", "mixture.length=512")
    time = step_time(work, ParallelConfig(), 1, B2)
    assert time.sending == {} and time.bubble == 0
    assert 0.5 * B2.products_reached < time.utilisation < B2.products_reached
    again = step_time(work.recomputed(True), ParallelConfig(), 1, B2)
    # forward is a third of the work: again, it makes it a third more
    assert again.computing == pytest.approx(4 / 3 * time.computing, rel=0.1)
    assert again.utilisation < time.utilisation


def test_bubble(read_workload):
    work = read_workload("model=base", "train.accumulate=6")
    time = step_time(work, ParallelConfig(pipeline=4), 4, B2)
    assert time.bubble / time.computing == pytest.approx(3 / 6)


def test_other_recipes_are_refused():
    _, config = load_recipe("codecs", [])
    with pytest.raises(ConfigError, match="only recipes that train the backbone are planned"):
        workload_of(config, B2)
