"""The layouts that are possible, those that fit, and which of them is fastest."""

from dataclasses import dataclass

from ascend.device_matrix import SHARDS, ParallelConfig
from ascend.rates import DeviceType
from taichu.errors import TaichuError
from taichu.plan.memory import USABLE, Memory, memory
from taichu.plan.step_time import StepTime, step_time
from taichu.plan.workload import Workload


class PlanError(TaichuError):
    """Nothing can be planned; one line says why, and what would help."""


@dataclass(frozen=True)
class Plan:
    """A layout, with or without recomputation, and what comes of it."""

    work: Workload
    layout: ParallelConfig
    devices: int
    device: DeviceType
    memory: Memory
    time: StepTime

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.device.memory * USABLE

    @property
    def reason(self) -> str:
        """What this plan's time goes to, beside computing."""
        time, parts = self.time, []
        costs = {f"sending among {name} ranks": s for name, s in time.sending.items()}
        costs |= {"pipeline's bubble": time.bubble, "update": time.update}
        for name, cost in sorted(costs.items(), key=lambda item: -item[1])[:2]:
            if cost > 0.005 * time.seconds:
                parts.append(f"{name} {cost / time.seconds:.0%}")
        start = f"computing {time.computing / time.seconds:.0%}"
        return ", ".join([start + (" (a part of it twice)" * self.work.recompute), *parts])


def find_plans(work: Workload, devices: int, device: DeviceType) -> list[Plan]:
    """All plans that fit, the fastest first; of equally fast ones the simplest.

    Raises:
        PlanError: none fits, or the number of devices is impossible.
    """
    if devices < 1:
        raise PlanError(f"--devices {devices}: must be 1 or more")
    if devices > device.node and devices % device.node:
        raise PlanError(
            f"--devices {devices}: a node of {device.name} has {device.node}; "
            f"take at most {device.node}, or a multiple of it"
        )
    plans = [
        make_plan(again, layout, devices, device)
        for layout in possible_layouts(work, devices, device)
        for again in (work.recomputed(False), work.recomputed(True))
    ]
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        raise PlanError(explain_misfit(min(plans, key=lambda plan: plan.memory.peak)))
    return sorted(fitting, key=lambda plan: (-round(plan.time.tokens_a_second), _parts(plan)))


def make_plan(work: Workload, layout: ParallelConfig, devices: int, device: DeviceType) -> Plan:
    """What comes of one layout, whether it fits or not."""
    held = memory(work, layout, devices)
    return Plan(work, layout, devices, device, held, step_time(work, layout, devices, device))


def possible_layouts(work: Workload, devices: int, device: DeviceType) -> list[ParallelConfig]:
    """Layouts that divide what they share; tensor ranks stay within a node, since they send most
    (Megatron-LM, 2104.04473, takeaway 1)."""
    size, G = work.size, work.size.key_value_heads
    tensors = [t for t in divisors(min(devices, device.node)) if size.hidden % t + G % t == 0]
    found = []
    for tensor in tensors:
        for sequence in divisors(devices // tensor):
            if G // tensor % sequence or work.batch.length % sequence:
                continue
            for pipeline in divisors(devices // tensor // sequence):
                if size.depth % pipeline:
                    continue
                replicas = devices // tensor // pipeline
                shards = SHARDS if replicas > 1 else SHARDS[:1]
                axes = {"tensor": tensor, "sequence": sequence, "pipeline": pipeline}
                found += [ParallelConfig(**axes, shard=shard) for shard in shards]
    return found


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def explain_misfit(plan: Plan) -> str:
    """One line: what of the smallest plan is too large, and what would make it fit."""
    held, limit = plan.memory, plan.device.memory * USABLE
    parts = {name: size for name, size in vars(held).items() if name != "gradients"}
    largest = max(parts, key=parts.get)
    state = held.weights + held.moments
    if held.lasting > limit or state > limit / 2:
        cure = "take more devices, or a type with more memory"
    else:
        cure = "lower mixture.rows, and raise train.accumulate for as many tokens a step"
    return (
        f"nothing fits: the smallest layout ({describe(plan.layout)}, recomputed) needs "
        f"{gigabytes(held.peak)} of the {gigabytes(limit)} GB that MindSpore can take of a "
        f"{plan.device.name}, most of it {largest} ({gigabytes(parts[largest])} GB); {cure}"
    )


def describe(layout: ParallelConfig) -> str:
    """A layout in a few words: the axes that are in use."""
    axes = ("tensor", "sequence", "pipeline")
    words = [f"{axis} {getattr(layout, axis)}" for axis in axes if getattr(layout, axis) > 1]
    words += [f"shard {layout.shard}"] * (layout.shard != "none")
    return ", ".join(words) or "data alone"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}"


def _parts(plan: Plan) -> tuple:
    layout = plan.layout
    sharing = layout.tensor * layout.sequence * layout.pipeline
    return sharing, SHARDS.index(layout.shard), plan.work.recompute
