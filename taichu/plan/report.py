"""Plans as text, as a table in markdown, and as plain values."""

from dataclasses import asdict

from ascend.device_matrix import ParallelConfig
from taichu.plan.communication import group_size
from taichu.plan.memory import USABLE
from taichu.plan.operations import executed, needed
from taichu.plan.parameters import count_by_part
from taichu.plan.search import Plan, describe, make_plan
from taichu.plan.step_time import slowest_collectives
from taichu.plan.workload import Stage

WHOLE = ParallelConfig()
BEST = 5  # plans that are shown


def as_plain(plans: list[Plan]) -> dict:
    """The best plan in full, and the next ones in short; plain values for JSON."""
    best, work = plans[0], plans[0].work
    stage = Stage(work.size.depth, True, True)
    of_model, computed = needed(work, WHOLE, stage), executed(work, WHOLE, stage)
    return {
        "devices": best.devices,
        "device_type": best.device.name,
        "parameters": count_by_part(work),
        "tokens_a_batch": work.tokens,
        "operations_a_token": {
            "forward": of_model.forward / work.tokens,
            "backward": of_model.backward / work.tokens,
            "executed": computed.total / work.tokens,
        },
        "visible_tokens": work.visible,
        "memory": {**asdict(best.memory), "peak": best.memory.peak},
        "usable_memory": int(best.device.memory * USABLE),
        "collectives": [
            {
                **asdict(collective),
                "ranks": (ranks := group_size(collective.group, best.layout, best.devices)),
                "sent": int(collective.sent(ranks)),
            }
            for collective in slowest_collectives(work, best.layout, best.devices, best.device)
        ],
        "plans": [in_short(plan) for plan in plans[:BEST]],
    }


def in_short(plan: Plan) -> dict:
    """A plan's layout and the figures that it is chosen by."""
    time = plan.time
    return {
        "parallel": asdict(plan.layout),
        "data": plan.layout.data(plan.devices),
        "recompute": plan.work.recompute,
        "tokens_a_second": time.tokens_a_second,
        "utilisation": time.utilisation,
        "seconds": time.seconds,
        "peak": plan.memory.peak,
        "reason": plan.reason,
    }


def as_text(plans: list[Plan]) -> str:
    """Everything that is known of the best plan, the next ones beside it, and the YAML of it."""
    found, best = as_plain(plans), plans[0]
    work, device = best.work, best.device
    batch, operations = work.batch, found["operations_a_token"]
    lines = [f"parameters {sum(found['parameters'].values()):,}"]
    lines += [f"  {part:<30}{count:>18,}" for part, count in found["parameters"].items() if count]
    lines += [
        "",
        f"a batch of a data rank: {batch.rows} rows x {batch.length} tokens, "
        f"{batch.targets:,} targets, {batch.pairs:,} pairs (estimated)",
        f"batches an update: {work.accumulate}",
        f"operations a token (matrix products; attention by {work.visible:.0f} visible tokens)",
        f"  {'forward':<30}{operations['forward']:>18.3e}",
        f"  {'backward':<30}{operations['backward']:>18.3e}",
        f"  {'executed, masked ones included':<30}{operations['executed']:>18.3e}",
        "",
        f"layouts of {best.devices} {device.name}, the fastest first",
        f"  {'layout':<44}{'tokens/s':>12}{'MFU':>7}{'step':>9}{'memory':>10}  where the time goes",
    ]
    for plan in plans[:BEST]:
        name = describe(plan.layout) + ", recomputed" * plan.work.recompute
        lines += [
            f"  {name:<44}{plan.time.tokens_a_second:>12,.0f}{plan.time.utilisation:>7.1%}"
            f"{plan.time.seconds:>7.2f} s{plan.memory.peak / 1e9:>7.1f} GB  {plan.reason}"
        ]
    lines += ["", f"memory of a device in the first, of {found['usable_memory'] / 1e9:.1f} GB (GB)"]
    lines += [_row(part, size) for part, size in asdict(best.memory).items() if size]
    lines += [_row("peak", best.memory.peak), "  (activations, casts and temporaries are gone when"]
    lines += ["  all gradients are there; workspace is a guess)"]
    kept = [
        make_plan(work.recomputed(again), best.layout, best.devices, device).memory.activations
        for again in (False, True)
    ]
    lines += ["", f"activations {kept[0] / 1e9:.2f} GB, with recomputed blocks {kept[1] / 1e9:.2f}"]
    lines += ["", "sent by a device in a step of the first"]
    sums: dict[str, list[int]] = {}
    for row in found["collectives"]:
        total = sums.setdefault(f"{row['kind']} among {row['ranks']} {row['group']} ranks", [0, 0])
        total[0] += row["calls"]
        total[1] += row["sent"]
    for name, (calls, size) in sums.items():
        lines += [f"  {name:<44}{calls:>8,} calls{size / 1e9:>10.2f} GB"]
    reached = f"{device.products_reached:.0%} of {device.peak(work.number_type) / 1e12:.0f} TFLOPS"
    lines += [
        "",
        f"assumed, not measured: {reached} ({work.number_type}), {device.links_reached:.0%} of the",
        "links; nothing that is sent is taken to be hidden behind computing",
    ]
    if not device.trains:
        lines += [f"note: this framework does not train on {device.name}"]
    return "\n".join([*lines, "", as_yaml(best)])


def as_yaml(plan: Plan) -> str:
    """The keys of a recipe that choose a plan."""
    layout = plan.layout
    lines = ["parallel:", f"  tensor: {layout.tensor}", f"  sequence: {layout.sequence}"]
    lines += [f"  pipeline: {layout.pipeline}"] * (layout.pipeline > 1)
    lines += [f"  shard: {layout.shard}", "train:"]
    return "\n".join([*lines, f"  recompute: {str(plan.work.recompute).lower()}"])


def as_markdown(best: list[Plan]) -> str:
    """A row for each number of devices."""
    lines = [
        "| devices | layout | blocks recomputed | tokens a step | step | tokens a second | MFU | "
        "memory a device | where the time goes |",
        "|---:|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for plan in best:
        time = plan.time
        again = "yes" if plan.work.recompute else "no"
        lines += [
            f"| {plan.devices} | {describe(plan.layout)} | {again} | {time.tokens:,} | "
            f"{time.seconds:.2f} s | {time.tokens_a_second:,.0f} | {time.utilisation:.1%} | "
            f"{plan.memory.peak / 1e9:.1f} GB | {plan.reason} |"
        ]
    return "\n".join(lines)


def _row(part: str, size: int) -> str:
    return f"  {part:<44}{size / 1e9:>12.2f}"
