"""How few parameters are to be tuned, and in what batches: by the data and by the memory.

Letters: D width, r rank, B rows, L tokens of a row.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from ascend.device_matrix import ParallelConfig
from taichu.config import ModelConfig
from taichu.data.conversations.template import DEFAULT, ChatTemplate, read_template
from taichu.data.packing import BatchShape
from taichu.errors import TuningError
from taichu.model.backbone import count_parameters
from taichu.plan.memory import activations, temporaries
from taichu.plan.parameters import Held, of_block
from taichu.plan.workload import Stage, Workload
from taichu.storage.model_folder import create_adapters, grids_of, read_config
from taichu.tokenizer import read_tokenizer
from taichu.vocabulary import Vocabulary

RANKS = (4, 8, 16, 32, 64)
EPOCHS = 3
SAMPLES = 24  # that an update learns from
STEPS = (500, 5000)  # fewest and most: little data are seen more often
PROCESS = 1 << 30  # bytes of a process with MindSpore, before there is a model; 0.9 GB measured
TAKEN = 0.6  # share of the free memory that is planned for
WHOLE = ParallelConfig()


class Base:
    """A model folder as far as plans need it, without its tensors.

    Args:
        folder: of the model.

    Raises:
        CheckpointError, TemplateError: a file is missing or malformed.
    """

    def __init__(self, folder: Path | str):
        self.config = read_config(Path(folder))
        self.vocabulary = Vocabulary.of_model(self.config, read_tokenizer(Path(folder)))
        self.adapters = create_adapters(self.config)
        self.template = read_template(folder) or ChatTemplate(DEFAULT)

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """(tokens, patch size) of each grid modality, in order."""
        return grids_of(self.adapters)


@dataclass(frozen=True)
class Lengths:
    """Of the samples that are to be learned, in tokens.

    Attributes:
        samples: how many.
        tokens: of all.
        learned: those of them that are decoded.
        longest: of one that has to fit a row.
    """

    samples: int
    tokens: int
    learned: int
    longest: int

    def __str__(self):
        return (
            f"{self.samples:,} samples of {self.tokens:,} tokens, {self.learned:,} of them "
            f"learned; the longest has {self.longest:,}"
        )


@dataclass(frozen=True)
class Batch:
    """B rows of L tokens, how many batches make an update, and whether blocks are recomputed."""

    rows: int
    length: int
    accumulate: int
    recompute: bool
    bytes: int  # that a step takes at most


def choose_rank(config: ModelConfig, lengths: Lengths) -> int:
    """The smallest of `RANKS` whose parameters can hold what there is to learn twice.

    Low-rank parameters hold about two bits each, and a token brings about one ("LoRA Without
    Regret", Thinking Machines 2025). Of half as many parameters as learned tokens the demo's model
    answers .89 of its questions rightly (rank 8), of more than there are tokens .93 (rank 16).
    """
    enough = (r for r in RANKS if lora_parameters(config, r) >= lengths.learned)
    return next(enough, RANKS[-1])


def lora_parameters(config: ModelConfig, rank: int) -> int:
    """Of LoRA on all linear maps of the blocks."""
    maps = [p.shape for p in of_block(config) if p.product and len(p.shape) == 2]
    return rank * config.depth * sum(map(sum, maps))


def choose_rate(config: ModelConfig) -> float:
    """LoRA's learning rate: 4e-3 at D = 128, which the demo's models take, 2e-4 at D = 4096, which
    is usual for language models, and between them a power of D."""
    power = math.log(4e-3 / 2e-4) / math.log(4096 / 128)
    return float(f"{4e-3 * (128 / config.width) ** power:.1e}")


def choose_batch(
    base: Base, lengths: Lengths, trained: int, free: int, number_type: str, flash: bool
) -> Batch:
    """Rows for `SAMPLES` samples; in several batches, then recomputed, where memory is short.

    Args:
        base: the model.
        lengths: of the data.
        trained: parameters that are.
        free: bytes.
        number_type: of products.
        flash: whether attention keeps no scores.

    Raises:
        TuningError: not even one recomputed row fits.
    """
    length = max(128, -(-lengths.longest // 64) * 64)
    wanted = max(1, round(SAMPLES * lengths.tokens / lengths.samples / length))
    share = lengths.learned / lengths.tokens
    rows, recompute = wanted, False
    while True:
        shape = _shape(rows, length, share, base.grids)
        work = _workload(base, shape, recompute, number_type, flash)
        size = step_bytes(work, trained)
        if size <= TAKEN * free:
            return Batch(rows, length, -(-wanted // rows), recompute, size)
        if rows == 1 and recompute:
            raise TuningError(
                f"memory: a row of {length} tokens takes {size / 1e9:.1f} GB, and of the "
                f"{free / 1e9:.1f} GB that are free {TAKEN:.0%} is planned for"
            )
        rows, recompute = (rows, True) if rows == 1 else (-(-rows // 2), recompute)


def step_bytes(work: Workload, trained: int) -> int:
    """What a process holds at most: weights in float32, of what is trained a gradient, its update
    and two moments besides, and what a batch takes by the formulas of `taichu.plan.memory`.

    On a CPU, 1.85 GB of LoRA on a LLaMA of 110 million parameters and 4 x 128 tokens, where 1.84
    are measured (the model of benchmarks/lora_step.py)."""
    stage = Stage(work.size.depth, True, True)
    weights = count_parameters(work.size, work.vocabulary, list(work.grids))
    held = Held(work, WHOLE, stage, 1)
    of_batch = activations(work, WHOLE, stage) + temporaries(work, WHOLE, held)
    return PROCESS + 4 * weights + 16 * trained + of_batch


def choose_steps(lengths: Lengths, batch: Batch) -> int:
    """Updates of `EPOCHS` epochs, within `STEPS`."""
    places = 0.9 * batch.rows * batch.length * batch.accumulate
    fewest, most = STEPS
    return min(most, max(fewest, round(EPOCHS * lengths.tokens / places)))


def _shape(rows: int, length: int, share: float, grids: dict) -> BatchShape:
    """A batch of such rows; media fill a third of its places, of each modality."""
    places = rows * length
    patches = tuple((name, max(T, places // 3), P) for name, (T, P) in grids.items())
    return BatchShape(rows, length, max(64, round(share * places)), max(1, places // 64), patches)


def _workload(base: Base, shape: BatchShape, recompute: bool, number_type: str, flash: bool):
    return Workload.of_model(
        base.config,
        base.vocabulary,
        base.grids.values(),
        batch=shape,
        visible=shape.length / 2,
        aligned=True,
        decoding=True,
        accumulate=1,
        recompute=recompute,
        number_type=number_type,
        flash=flash,
    )
