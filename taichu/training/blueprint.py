"""A recipe's model and the shape of its batches, known before there is any data.

What depends on the data (how long texts are, how many samples a batch holds) is estimated.
"""

from dataclasses import dataclass, field

from taichu.config import ModelConfig
from taichu.data.batches import MixtureConfig, parse_group
from taichu.data.packing import BatchShape
from taichu.model.backbone import Backbone
from taichu.storage.model_folder import create_adapters, grids_of
from taichu.vocabulary import TEXT, JointIds

TEXT_TOKENS = 24  # of a caption, control tokens among them


@dataclass(frozen=True)
class Blueprint:
    """What can be said of a run from its settings alone.

    Attributes:
        size: of the model.
        mixture: of the batches.
    """

    size: ModelConfig
    mixture: MixtureConfig
    adapters: dict = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "adapters", create_adapters(self.size))

    @property
    def ids(self) -> JointIds:
        """The joint vocabulary, of as many pieces as the size allows."""
        return JointIds(self.size.pieces, self.size.code_counts)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(tokens, patch size) of each grid modality, in the size's order."""
        return list(grids_of(self.adapters).values())

    @property
    def decoding(self) -> bool:
        return self.mixture.grouped_weight > 0 or self.mixture.joint_weight > 0

    def backbone(self) -> Backbone:
        return Backbone(self.size, self.ids.size, self.grids)

    def tokens(self, modality: str) -> int:
        """Of one span, with its control tokens."""
        if modality == TEXT:
            return TEXT_TOKENS
        return self.adapters[modality].geometry.tokens + 2

    def batch_shape(self) -> BatchShape:
        """The shape that `taichu.data.batches.Batches` would choose for typical data."""
        mixture, places = self.mixture, self.mixture.rows * self.mixture.length
        samples, targets = {}, 0
        for name in mixture.groups:
            left, right = parse_group(name, self.adapters)
            observed = sum(map(self.tokens, left + right))
            # each side decodes one modality of the other
            made = sum(max(map(self.tokens, side)) for side in (left, right)) * self.decoding
            samples[name] = max(1, int(mixture.fill * places / (observed + made)))
            targets = max(targets, samples[name] * made)
        patches = []
        for name, adapter in self.adapters.items():
            most = max((n for group, n in samples.items() if name in _modalities(group)), default=1)
            patches.append((name, most * adapter.geometry.tokens, adapter.geometry.patch_size))
        return BatchShape(
            mixture.rows,
            mixture.length,
            min(places, -(-targets // 64) * 64) if self.decoding else 1,
            max(samples.values()) if mixture.alignment_weight > 0 else 1,
            tuple(patches),
        )


def _modalities(group: str) -> list[str]:
    return group.replace("-", "+").split("+")
