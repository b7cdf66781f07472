"""Bytes that a device holds, by part: formulas of the step's graph as MindSpore compiles it for an
Ascend, held against such graphs and MindSpore's own account of memory by tests/taichu/plan.

Letters: B rows, L tokens of a row, N = B x L, D width, H heads, G key/value heads, K head size,
F hidden width, V vocabulary, M targets, E pairs, C width of embeddings; t ranks that share
matrices, s that share rows; b bytes of a number of the compute type. What t and s share of a block
is as in Korthikanti et al. (2205.05198, section 4.2.1) and Ulysses (2309.14509, section 3).
"""

from dataclasses import dataclass

from ascend.device_matrix import ParallelConfig
from taichu.config import TowerConfig
from taichu.model.towers.shapes import inside_tower
from taichu.plan.operations import forwards
from taichu.plan.parameters import Held
from taichu.plan.workload import Stage, Workload, stages

# HCCL's for each group of ranks: to send and to receive, HCCL_BUFFSIZE (200 MB by default) each
GROUP_BUFFERS = 2 * 200 * 2**20
WORKSPACE = 2**30  # a guess: what kernels ask for while they run, and fragments
USABLE = 15 / 16  # of the memory, what MindSpore takes: 61430 of 65536 MB of a 910B


@dataclass(frozen=True)
class Memory:
    """Bytes of a device, by part.

    Of what is not always there, activations, casts and temporaries are at their most when the loss
    is taken, gradients when all are made.
    """

    weights: int
    moments: int
    gathered: int  # gradients of earlier batches, where several make an update
    batch: int
    constants: int
    communication: int
    workspace: int
    activations: int  # what forward made and backward needs
    casts: int  # weights in the compute type, made by forward and used again by backward
    temporaries: int  # what exists for a moment: logits, or a block's gradients where that is more
    gradients: int

    @property
    def lasting(self) -> int:
        state = self.weights + self.moments + self.gathered
        return state + self.batch + self.constants + self.communication + self.workspace

    @property
    def peak(self) -> int:
        at_loss = self.activations + self.casts + self.temporaries
        return self.lasting + max(at_loss, self.gradients)


def memory(work: Workload, layout: ParallelConfig, devices: int) -> Memory:
    """Of a device of the stage that needs most."""
    data = layout.data(devices)
    of_stages = [of_stage(work, layout, data, stage) for stage in stages(work.size, layout)]
    return max(of_stages, key=lambda memory: memory.peak)


def of_stage(work: Workload, layout: ParallelConfig, data: int, stage: Stage) -> Memory:
    """Of a device of one stage."""
    replicas = data * layout.sequence
    held = Held(work, layout, stage, replicas)
    sizes = layout.tensor, layout.sequence, layout.pipeline, data, replicas
    groups = len({n for n in sizes if n > 1})
    piped = layout.pipeline > 1
    several = work.accumulate > 1 or piped
    own = 4 * held.own(held.trained)
    received = work.tokens // layout.sequence * work.size.width * work.number_bytes
    # the graph that gathers and the one that updates have each its own
    graphs, batches = 1 + several, batch_bytes(work, stage) * (1 + several)
    if piped:  # a batch waits in the host's memory, what was received of it in the device's
        graphs = forwards(stage)
        batches = batch_bytes(work, stage) + received * (not stage.reads) * work.accumulate
    rows = sum(p.count // replicas for p in held.trained if held.shares_update(p))
    return Memory(
        weights=own + 4 * rows + 4 * sum(p.count for p in held.measured),
        moments=8 * held.updated(),
        gathered=2 * own * several,  # and MindSpore's copy, as an update reads and clears them
        batch=batches,
        constants=constants(work, layout, stage) * graphs,
        communication=GROUP_BUFFERS * groups,
        workspace=WORKSPACE,
        activations=activations(work, layout, stage),
        casts=casts(work, held),
        temporaries=temporaries(work, layout, held),
        gradients=own + 4 * max(p.count for p in held.trained),
    )


def block_activations(work: Workload, layout: ParallelConfig) -> int:
    """What a block's backward needs of its forward."""
    size, b, t, s = work.size, work.number_bytes, layout.tensor, layout.sequence
    N, D, K, F = work.tokens // s, size.width, size.head_size, size.hidden // t
    H, G = size.heads // t, size.key_value_heads // t
    norms = 2 * (2 * N * D * b + 4 * N)  # twice a sum, what it is normalised to, and 1 / rms
    before_turn = N * (H + G) * (K * b + 4) if size.query_key_norm else 0  # and 1 / rms
    attention = N * (H + 2 * G) * K * b  # turned queries and keys, values
    out = N * H * K * b * (2 if s > 1 else 1)  # by head and, where these differ, by token
    gated = 3 * N * F * b  # gate and up side by side, and their product
    return norms + before_turn + attention + softmax(work, layout) + out + gated


def softmax(work: Workload, layout: ParallelConfig) -> int:
    """What is kept of attention's softmax."""
    size, b = work.size, work.number_bytes
    N, H = work.tokens // layout.sequence, size.heads // layout.tensor
    if work.flash:  # a row's largest score and sum (2307.08691, section 3.1), eight times each
        return 2 * 8 * 4 * N * H
    scores = N * H * work.batch.length
    repeated = size.heads > size.key_value_heads  # keys and values, for each head of a group
    return scores * (4 + b * (b < 4)) + 2 * N * H * size.head_size * b * repeated


def activations(work: Workload, layout: ParallelConfig, stage: Stage) -> int:
    """What backward needs of forward, of one batch."""
    size, b, batch = work.size, work.number_bytes, work.batch
    N, D = work.tokens // layout.sequence, size.width
    # recomputed: what comes into a block (1604.06174, section 4.1)
    of_block = 2 * N * D * b if work.recompute else block_activations(work, layout)
    total = stage.blocks * of_block
    total += work.tokens * batch.length * (1 if work.flash else 4)  # which tokens a token sees
    total += 2 * N * size.head_size * b  # cosines and sines
    if stage.reads:
        total += 4 * N  # which tokens are ids
        patches = sum(n * P for _, n, P in batch.patches)
        for (name, n, P), (T, _) in zip(batch.patches, work.grids):
            tower = work.size.towers.get(name)
            patches += 0 if tower else T * P
            total += tower_activations(work, tower, n, T, P) if tower else 0
        total += patches * b * (b < 4)
    if stage.ends:
        total += N * D * b + 4 * N  # the last norm
        total += decoding_activations(work) + alignment_activations(work)
    return total


def tower_activations(work: Workload, tower: TowerConfig, n: int, T: int, P: int) -> int:
    """What backward needs of a tower, nearly, and of its projector; of a frozen one, of that alone.
    Not held against a compiled step, as other figures are."""
    W, b, D = tower.width, work.number_bytes, work.size.width
    kept = n * (W + 2 * D * (tower.projector == "mlp")) * b
    if tower.frozen:
        return kept
    inside = inside_tower(tower, T, P)
    N = n // T * inside
    scores = N * tower.heads * (2 * 8 * 4 if work.flash else inside * (4 + b * (b < 4)))
    # two norms in float32 and what they give, queries, keys, values and what is seen, three hidden
    layer = N * (2 * W * (4 + b) + 4 * W * b + 3 * tower.hidden * b) + scores
    return kept + layer * tower.depth


def decoding_activations(work: Workload) -> int:
    """Hidden states of targets, and the logarithm of the softmax of their logits in float32."""
    M, D = work.batch.targets, work.size.width
    return (M * D * work.number_bytes + 4 * M * work.vocabulary) * work.decoding


def alignment_activations(work: Workload) -> int:
    """Pooled states, embeddings before and after they are made unit vectors, scores."""
    E, D, C, b = work.batch.pairs, work.size.width, work.size.embedding, work.number_bytes
    return (2 * E * (D * b + 2 * C * 4 + 12) + 3 * 4 * E * E) * work.aligned


def casts(work: Workload, held: Held) -> int:
    """Weights in the compute type; where blocks are recomputed, theirs are made again, but for the
    sharded optimizer's, which MindSpore finds unchanged until the step's end."""
    if work.number_bytes == 4 and held.layout.shard != "parameters":
        return 0
    again = work.recompute and held.layout.shard != "optimizer"
    kept = held.outside if again else held.trained
    count = sum(parameter.count for parameter in kept if parameter.product)
    head = work.vocabulary * work.size.width * held.stage.ends * work.decoding
    return (count + head) * work.number_bytes


def temporaries(work: Workload, layout: ParallelConfig, held: Held) -> int:
    """The most that exists for a moment, beside all that is kept from forward."""
    kept_logits = 4 * work.batch.targets * work.vocabulary * held.stage.ends * work.decoding
    again = block_activations(work, layout) if work.recompute else 0
    moments = [again + block_gradients(work, layout) - kept_logits]
    if held.stage.ends and work.decoding:
        moments += [2 * kept_logits]  # logits in float32, and what masks them
        # the id table's gradient and the parts that it is put together from
        moments += [4 * work.size.width * (2 * work.vocabulary + work.codes) - kept_logits]
    return max(0, *moments)


def block_gradients(work: Workload, layout: ParallelConfig) -> int:
    """While backward is in a feed-forward layer: gradients of the hidden widths, and of sums."""
    N, b = work.tokens // layout.sequence, work.number_bytes
    return N * b * (2 * work.size.hidden // layout.tensor + 2 * work.size.width)


def constants(work: Workload, layout: ParallelConfig, stage: Stage) -> int:
    """Zeros that gradients of look-ups are added to, and which digits spell each code."""
    D, b, N = work.size.width, work.number_bytes, work.tokens // layout.sequence
    total = 4 * work.codes * work.digits
    if stage.reads:
        total += 4 * work.vocabulary * D + sum(n for _, n, _ in work.batch.patches) * D * b
    if stage.ends:
        total += work.tokens * D * b * work.decoding
    return total + N * D * b * work.recompute


def batch_bytes(work: Workload, stage: Stage) -> int:
    """What a stage reads of the batch itself: of eight numbers a place, five a target, two a pair,
    and the patches."""
    batch = work.batch
    numbers = 5 * work.tokens
    if stage.reads:
        numbers += 2 * work.tokens + sum(n * P for _, n, P in batch.patches)
    if stage.ends:
        numbers += work.tokens + 5 * batch.targets + 2 * batch.pairs
    return 4 * numbers
