"""What one data rank computes between two updates, as far as plans need it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ascend.device_matrix import ParallelConfig
from ascend.rates import DeviceType
from taichu.config import ModelConfig
from taichu.data.batches import parse_group
from taichu.data.packing import BatchShape
from taichu.errors import ConfigError
from taichu.storage.model_folder import read_size
from taichu.training.blueprint import Blueprint
from taichu.vocabulary import TEXT, JointIds

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Workload:
    """A model, the batches of a data rank, and how it is trained.

    Attributes:
        size: of the model.
        vocabulary: V, rows of the id table.
        digits: R, rows of the table of codes' digits.
        codes: C, ids that are codes.
        grids: (tokens, patch size) of each grid modality, in the size's order.
        batch: shape of one batch of one data rank (a microbatch).
        visible: tokens that a token sees on average, itself among them.
        aligned, decoding: whether the losses of alignment and decoding are in the graph.
        accumulate: batches an update.
        recompute: whether blocks are computed again for their gradients.
        number_type: of products, and of what passes between them.
        flash: whether attention is FlashAttentionScore, which keeps no scores.
    """

    size: ModelConfig
    vocabulary: int
    digits: int
    codes: int
    grids: tuple[tuple[int, int], ...]
    batch: BatchShape
    visible: float
    aligned: bool
    decoding: bool
    accumulate: int
    recompute: bool
    number_type: str
    flash: bool

    @classmethod
    def of_model(
        cls, size: ModelConfig, ids: JointIds, grids: Iterable[tuple[int, int]], **others
    ) -> "Workload":
        """Of a model, with the fields that do not follow from it.

        Args:
            size: of the model.
            ids: its joint vocabulary's.
            grids: (tokens, patch size) of each grid modality, in the size's order.
        """
        return cls(
            size=size,
            vocabulary=size.table_rows(ids.size),
            digits=sum(sum(codec.levels) for codec in size.codecs.values()),
            codes=sum(len(ids.codes(name)) for name in size.modalities),
            grids=tuple(grids),
            **others,
        )

    @property
    def tokens(self) -> int:
        """N, places of a batch, padding among them."""
        return self.batch.rows * self.batch.length

    @property
    def number_bytes(self) -> int:
        return BYTES[self.number_type]

    def recomputed(self, recompute: bool) -> "Workload":
        return replace(self, recompute=recompute)


@dataclass(frozen=True)
class Stage:
    """What a pipeline's stage holds: so many blocks, the reading of tokens, the losses."""

    blocks: int
    reads: bool
    ends: bool


def stages(size: ModelConfig, layout: ParallelConfig) -> tuple[Stage, ...]:
    """The first and the last stage; those between hold no more than the first."""
    blocks = size.depth // layout.pipeline
    if layout.pipeline == 1:
        return (Stage(blocks, True, True),)
    return Stage(blocks, True, False), Stage(blocks, False, True)


def workload_of(config, device: DeviceType) -> Workload:
    """The workload of a recipe's settings on a type of device.

    Raises:
        ConfigError: the recipe does not train the backbone.
    """
    if not hasattr(config, "mixture"):
        raise ConfigError("only recipes that train the backbone are planned, such as pretrain")
    size = read_size(config.model)
    blueprint = Blueprint(size, config.mixture)
    number_type = device.number_type if config.precision == "auto" else config.precision
    device.peak(number_type)
    return Workload.of_model(
        size,
        blueprint.ids,
        blueprint.grids,
        batch=blueprint.batch_shape(),
        visible=visible_length(blueprint),
        aligned=config.mixture.alignment_weight > 0,
        decoding=blueprint.decoding,
        accumulate=config.train.accumulate,
        recompute=config.train.recompute,
        number_type=number_type,
        flash=BYTES[number_type] == 2 and bool(device.products["bfloat16"]),
    )


def visible_length(blueprint: Blueprint) -> float:
    """Tokens that a token sees on average: earlier ones of its segment, all of its own span.

    Estimated for segments of one side of a group and what is decoded from it; see `Blueprint`.
    """
    pairs = tokens = 0.0
    for name, share in blueprint.mixture.groups.items():
        sides = parse_group(name, blueprint.adapters)
        for side, other in (sides, sides[::-1]):
            observed = [blueprint.tokens(modality) for modality in side]
            made = max(map(blueprint.tokens, other)) * blueprint.decoding
            n = sum(observed) + made
            later = sum(t * (t - 1) / 2 for t, name in zip(observed, side) if name != TEXT)
            pairs += share * (n * (n + 1) / 2 + later)
            tokens += share * n
    return pairs / tokens
