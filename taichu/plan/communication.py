"""What a device sends in a step: every collective of its graphs, with its group, size and number.

The collectives are those of `ascend.operators.collectives` and `ascend.operators.gradient_mean`,
and tests/taichu/plan counts them in compiled graphs.
"""

from collections import Counter
from dataclasses import dataclass

from ascend.device_matrix import ParallelConfig
from ascend.rates import DeviceType
from taichu.plan.operations import forwards
from taichu.plan.parameters import Held
from taichu.plan.workload import Stage, Workload

AXES = ("tensor", "sequence", "data", "pipeline")  # the fastest first; replicas are data x sequence


@dataclass(frozen=True)
class Collective:
    """Calls of one kind in a step.

    Attributes:
        kind: AllReduce, AllGather, ReduceScatter, AlltoAll or Send.
        group: the axis of the ranks that take part; "replica" is data and sequence together.
        size: bytes of the largest tensor of a call, input or output.
        calls: of a device in a step.
    """

    kind: str
    group: str
    size: int
    calls: int

    def sent(self, ranks: int) -> float:
        """Bytes that a device sends in all calls, in rings (1910.02054, section 7.1)."""
        share = {"AllReduce": 2 * (ranks - 1) / ranks, "Send": 1.0}
        return self.calls * self.size * share.get(self.kind, (ranks - 1) / ranks)


def communication(
    work: Workload, layout: ParallelConfig, devices: int, stage: Stage
) -> list[Collective]:
    """All collectives of a device of a stage in a step."""
    data = layout.data(devices)
    held = Held(work, layout, stage, data * layout.sequence)
    calls: Counter = Counter()
    if layout.tensor > 1:
        _add_tensor(calls, work, layout, stage)
    if layout.sequence > 1:
        _add_sequence(calls, work, layout, stage)
    if layout.pipeline > 1:
        _add_pipeline(calls, work, layout, held)
    if held.replicas > 1:
        _add_gradients(calls, work, held)
    if data > 1 and stage.ends and work.aligned:
        _add_alignment(calls, work, data)
    if layout.tensor * held.replicas * layout.pipeline > 1:
        _add_norm(calls, layout, held)
    return [Collective(*kind, count) for kind, count in sorted(calls.items())]


def group_size(group: str, layout: ParallelConfig, devices: int) -> int:
    if group == "replica":
        return layout.data(devices) * layout.sequence
    if group == "ends":
        return 2
    return layout.data(devices) if group == "data" else getattr(layout, group)


def _add_tensor(calls: Counter, work: Workload, layout: ParallelConfig, stage: Stage):
    """Megatron-LM (1909.08053, figure 4): two sums forward, two backward; a block that is computed
    again for its gradient needs the first of forward's once more."""
    size, blocks = work.size, stage.blocks * work.accumulate
    sums = work.tokens // layout.sequence * size.width * work.number_bytes
    times = 2 * forwards(stage) + 2 + work.recompute
    calls["AllReduce", "tensor", sums] += times * blocks
    if size.query_key_norm:  # the gains of heads that tensor ranks share out
        calls["AllReduce", "tensor", 4 * size.head_size] += 2 * blocks


def _add_sequence(calls: Counter, work: Workload, layout: ParallelConfig, stage: Stage):
    """Ulysses (2309.14509, section 3): queries, keys, values and the result, there and back."""
    size, b = work.size, work.number_bytes
    passes = forwards(stage) + 1 + work.recompute
    times = passes * stage.blocks * work.accumulate
    for heads in (size.heads, size.key_value_heads, size.key_value_heads, size.heads):
        share = work.tokens // layout.sequence * heads // layout.tensor * size.head_size
        calls["AlltoAll", "sequence", share * b] += times
    if stage.ends:
        hidden = work.tokens * size.width * b
        calls["AllGather", "sequence", hidden] += work.accumulate
        calls["ReduceScatter", "sequence", hidden] += work.accumulate


def _add_pipeline(calls: Counter, work: Workload, layout: ParallelConfig, held: Held):
    """Activations forward and their gradient backward, of each batch (1811.06965, figure 2); once,
    what the stages tell each other of the loss, and the gradient of what both ends hold."""
    hidden = work.tokens // layout.sequence * work.size.width * work.number_bytes
    # the first stage stands for those between, which send both ways
    neighbours = 1 if layout.pipeline == 2 or held.stage.ends else 2
    calls["Send", "pipeline", hidden] += neighbours * work.accumulate
    calls["AllReduce", "pipeline", 4 * (4 + len(work.grids))] += 1
    if work.size.tied and (held.stage.reads or held.stage.ends):
        for parameter in held.outside:
            if parameter.part == "id table":
                calls["AllReduce", "ends", 4 * parameter.count] += 1


def _add_gradients(calls: Counter, work: Workload, held: Held):
    """Gradients, in float32, and weights: ZeRO (1910.02054, section 7) where they are shared."""
    passes = forwards(held.stage)
    in_block = len(held.block) * held.stage.blocks
    for n, parameter in enumerate(held.block * held.stage.blocks + held.outside):
        if held.shares_parameter(parameter):
            again = work.recompute and n < in_block
            gathered = work.number_bytes * parameter.count
            calls["AllGather", "replica", gathered] += (passes + again) * work.accumulate
            calls["ReduceScatter", "replica", 4 * parameter.count] += work.accumulate
        elif held.shares_update(parameter):
            calls["ReduceScatter", "replica", 4 * parameter.count] += 1
            calls["AllGather", "replica", 4 * parameter.count] += 1
        else:
            calls["AllReduce", "replica", 4 * parameter.count] += 1


def _add_alignment(calls: Counter, work: Workload, data: int):
    """Both sides' embeddings, groups and captions of all data ranks, and how many pairs count."""
    E, C, times = work.batch.pairs, work.size.embedding, work.accumulate
    calls["AllGather", "data", 4 * data * E * C] += 2 * times
    calls["ReduceScatter", "data", 4 * data * E * C] += 2 * times
    calls["AllGather", "data", 4 * data * E] += 2 * times
    calls["AllReduce", "data", 4] += times


def _add_norm(calls: Counter, layout: ParallelConfig, held: Held):
    """The gradients' norm: a sum of squares for each way in which parameters are shared out; what
    both ends of a pipeline hold is counted by the first."""
    shared, counted = layout.tensor > 1, held.trained
    if not held.stage.reads:
        counted = [p for p in counted if p.part != "id table"]
    kinds = {(shared and p.split is not None, held.is_split(p)) for p in counted}
    for n, group in enumerate(("tensor", "replica")):
        if any(kind[n] for kind in kinds):
            calls["AllReduce", group, 4 * len(kinds)] += 1
    if layout.pipeline > 1:
        calls["AllReduce", "pipeline", 4] += 1


def seconds(
    collective: Collective, layout: ParallelConfig, devices: int, device: DeviceType
) -> float:
    """Time of all its calls, by bandwidth alone: within nodes first, then between them, where each
    device sends its node's share (hierarchical rings)."""
    group, ranks = collective.group, group_size(collective.group, layout, devices)
    slowest = {"replica": "sequence", "ends": "pipeline"}.get(group, group)
    axes = AXES[: AXES.index(slowest)]
    stride = 1
    for axis in axes:
        stride *= group_size(axis, layout, devices)
    inside = max(1, min(ranks, device.node // stride))
    nodes = -(-ranks // inside)
    whole = collective.size * collective.calls
    if collective.kind == "Send":
        return whole / (device.inside_bandwidth(2) if inside > 1 else device.between_bandwidth)
    passes = 2 if collective.kind == "AllReduce" else 1
    time = 0.0
    if inside > 1:
        time += passes * whole * (inside - 1) / inside / device.inside_bandwidth(inside)
    if nodes > 1:
        # what is reduced or gathered goes out once a node, what is exchanged once a device
        leaving = whole if collective.kind == "AlltoAll" else whole / inside
        time += passes * leaving * (nodes - 1) / nodes / device.between_bandwidth
    return time
