"""Time of a step from operations, bytes and a device's rates.

A lower bound of the speed in one way: nothing that is sent is taken to be hidden behind computing.
In another an upper one: latencies, waiting for data and unequal ranks are left out.
"""

from dataclasses import dataclass

from ascend.device_matrix import ParallelConfig
from ascend.rates import DeviceType
from taichu.plan.communication import Collective, communication, seconds
from taichu.plan.operations import executed, needed
from taichu.plan.parameters import Held
from taichu.plan.workload import Stage, Workload, stages

UPDATE_BYTES = 4 * 10  # a parameter: AdamW reads four numbers and writes three; clipping reads, and
# reads and writes, the gradient


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, by what they go to; of the slowest stage.

    Attributes:
        sending: seconds of each group's collectives.
        tokens: places of all data ranks' batches, padding among them.
        utilisation: needed operations as a share of all devices' peak (MFU).
    """

    computing: float
    bubble: float  # of a pipeline that fills and empties
    update: float
    sending: dict[str, float]
    tokens: int
    utilisation: float

    @property
    def seconds(self) -> float:
        return self.computing + self.bubble + self.update + sum(self.sending.values())

    @property
    def tokens_a_second(self) -> float:
        return self.tokens / self.seconds


def step_time(work: Workload, layout: ParallelConfig, devices: int, device: DeviceType) -> StepTime:
    """Of a step on so many devices of a type."""
    found = [_of_stage(work, layout, devices, device, s) for s in stages(work.size, layout)]
    return max(found, key=lambda time: time.seconds)


def slowest_collectives(
    work: Workload, layout: ParallelConfig, devices: int, device: DeviceType
) -> list[Collective]:
    """Those of the stage that is slowest."""
    of_stage = {s: _of_stage(work, layout, devices, device, s) for s in stages(work.size, layout)}
    stage = max(of_stage, key=lambda stage: of_stage[stage].seconds)
    return communication(work, layout, devices, stage)


def _of_stage(
    work: Workload, layout: ParallelConfig, devices: int, device: DeviceType, stage: Stage
) -> StepTime:
    data, m = layout.data(devices), work.accumulate
    peak = device.peak(work.number_type)
    batch = executed(work, layout, stage, data).total / (peak * device.products_reached)
    updated = Held(work, layout, stage, data * layout.sequence).updated()
    sending: dict[str, float] = {}
    for collective in communication(work, layout, devices, stage):
        time = seconds(collective, layout, devices, device)
        sending[collective.group] = sending.get(collective.group, 0.0) + time
    # the bubble's share of m batches is (p - 1) / m (2104.04473, section 2.2.1)
    time = StepTime(
        computing=m * batch,
        bubble=(layout.pipeline - 1) * batch,
        update=UPDATE_BYTES * updated / device.memory_bandwidth,
        sending=sending,
        tokens=data * m * work.tokens,
        utilisation=0.0,
    )
    whole = (
        needed(work, ParallelConfig(), Stage(work.size.depth, True, True), data).total * m * data
    )
    return StepTime(**{**vars(time), "utilisation": whole / (time.seconds * devices * peak)})
