"""Operations of matrix products, exactly; a multiplication and an addition are two.

Everything else (norms, softmax, the update) is a few operations a number and takes the time that
its bytes take; the assumed share of the peak stands for it.
"""

from dataclasses import dataclass

from ascend.device_matrix import ParallelConfig
from taichu.config import TowerConfig
from taichu.model.towers.shapes import inside_tower
from taichu.plan.workload import Stage, Workload


@dataclass(frozen=True)
class Product:
    """A matrix product (rows, inner) x (inner, columns), and how often it is made in forward.

    Attributes:
        gradients: of its two factors, how many have gradients: products as large as itself.
    """

    part: str
    rows: int
    inner: int
    columns: int
    times: int = 1
    gradients: int = 2

    @property
    def forward(self) -> int:
        return 2 * self.rows * self.inner * self.columns * self.times

    @property
    def backward(self) -> int:
        return self.gradients * self.forward


def products(work: Workload, layout: ParallelConfig, stage: Stage, data: int = 1) -> list[Product]:
    """All of one batch on a device, but for those inside attention."""
    return (
        block_products(work, layout, stage.blocks)
        + (reading_products(work, layout) if stage.reads else [])
        + (loss_products(work, data) if stage.ends else [])
    )


def block_products(work: Workload, layout: ParallelConfig, blocks: int) -> list[Product]:
    size, t = work.size, layout.tensor
    N, D, K, F = work.tokens // layout.sequence, size.width, size.head_size, size.hidden // t
    H, G = size.heads // t, size.key_value_heads // t
    chosen = size.active_experts if size.experts else 1
    found = [
        Product("queries, keys, values", N, D, (H + 2 * G) * K, blocks),
        Product("attention's output", N, H * K, D, blocks),
        Product("feed-forward", N * chosen, D, 3 * F, blocks),
    ]
    return found + [Product("router", N, D, size.experts, blocks)] * bool(size.experts)


def reading_products(work: Workload, layout: ParallelConfig) -> list[Product]:
    """Of patches, which have no gradient, their means, angles, and the spelling of codes."""
    D, N = work.size.width, work.tokens // layout.sequence
    found = []
    for (name, n, P), (T, _) in zip(work.batch.patches, work.grids):
        if name in work.size.towers:
            found += tower_products(work.size.towers[name], n, T, P, D)
        else:
            found += [Product("patches", rows, P, D, gradients=1) for rows in (n, T)]
    found += [Product("angles", N, 3, work.size.head_size // 2, gradients=0)]
    return found + spelling(work)


def tower_products(tower: TowerConfig, n: int, T: int, P: int, D: int) -> list[Product]:
    """Of n patches in grids of T: of a tower, those inside attention among them, and a projector.
    Nothing has a gradient in a frozen tower, and in none what it reads."""
    W, F, K = tower.width, tower.hidden, tower.width // tower.heads
    inside, sound = inside_tower(tower, T, P), tower.kind == "whisper"
    N, trained = n // T * inside, not tower.frozen
    if sound:
        found = [("towers", 2 * N, 3 * tower.channels, W, 1, trained)]
        found += [("towers", N, 3 * W, W, 1, 2 * trained)]
    else:
        found = [("towers", n, P, W, 1, trained)]
    of_layers = [(N, W, 4 * W), (N, W, 2 * F), (N * tower.heads, K, 2 * inside)]
    found += [("towers", *product, tower.depth, 2 * trained) for product in of_layers]
    found += [("patches", n, W, D, 1, 1 + trained)]
    found += [("patches", n, D, D, 1, 2)] * (tower.projector == "mlp")
    return [Product(*product) for product in found]


def spelling(work: Workload) -> list[Product]:
    """Vectors of codes from those of their digits."""
    return [Product("spelling", work.codes, work.digits, work.size.width, gradients=1)]


def loss_products(work: Workload, data: int) -> list[Product]:
    """Logits, projections, and the scores of all data ranks' pairs, both ways."""
    D, C, batch = work.size.width, work.size.embedding, work.batch
    found = []
    if work.decoding:
        found += [Product("logits", batch.targets, D, work.vocabulary)] + spelling(work)
    if work.aligned:
        found += [Product("alignment", 2 * batch.pairs, D, C)]
        found += [Product("alignment", batch.pairs, C, batch.pairs * data, times=2)]
    return found


def attention_operations(work: Workload, layout: ParallelConfig, blocks: int, seen: float) -> float:
    """Forward's inside attention: scores and their sum of values (1706.03762, eq. 1).

    Args:
        seen: tokens that each token is held against.
    """
    heads = work.size.heads // layout.tensor
    return 4 * (work.tokens // layout.sequence) * seen * heads * work.size.head_size * blocks


@dataclass(frozen=True)
class Operations:
    """Of one batch on a device."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.backward


def needed(work: Workload, layout: ParallelConfig, stage: Stage, data: int = 1) -> Operations:
    """What the model asks for, attention by the mean number of visible tokens: what utilisation is
    measured by (PaLM, 2204.02311, appendix B)."""
    inside = attention_operations(work, layout, stage.blocks, work.visible)
    made = products(work, layout, stage, data)
    forward = sum(product.forward for product in made) + inside
    return Operations(forward, sum(product.backward for product in made) + 2 * inside)


def forwards(stage: Stage) -> int:
    """How often a stage computes a batch's forward: to pass it on, and for its gradients."""
    return 1 if stage.ends else 2


def executed(work: Workload, layout: ParallelConfig, stage: Stage, data: int = 1) -> Operations:
    """What is computed: attention against all tokens of a row, since its mask is a dense one, the
    scores once more in backward (2307.08691, section 3.1), what a stage passes on, and recomputed
    blocks."""
    inside = attention_operations(work, layout, stage.blocks, work.batch.length)
    made = products(work, layout, stage, data)
    forward = sum(product.forward for product in made) + inside
    backward = sum(product.backward for product in made) + (2.5 if work.flash else 2) * inside
    if work.recompute:  # all but the last product of each block, whose result is not needed
        again = block_products(work, layout, stage.blocks)
        last = Product("down", again[2].rows, again[2].columns // 3, work.size.width, stage.blocks)
        backward += sum(product.forward for product in again) - last.forward + inside
    return Operations(forward * forwards(stage), backward)
