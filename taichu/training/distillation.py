"""A smaller student learns what a teacher predicts (Hinton et al., 1503.02531)."""

from dataclasses import dataclass

import mindspore as ms
from mindspore import ops

from taichu.errors import ConfigError
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective
from taichu.training.r_drop import logs_in
from taichu.vocabulary import JointIds


@dataclass(frozen=True)
class DistillationConfig:
    """What is learned of the teacher, beside what is learned of the data."""

    temperature: float = 2.0  # T that both softmaxes are softened by
    decoding_weight: float = 1.0  # of the divergence of what is decoded; 0 leaves it out
    embedding_weight: float = 1.0  # of the distance of embeddings; 0 leaves it out

    def __post_init__(self):
        if self.temperature <= 0:
            raise ConfigError(f"distillation.temperature: must be above 0, not {self.temperature}")
        for key in ("decoding_weight", "embedding_weight"):
            if getattr(self, key) < 0:
                raise ConfigError(
                    f"distillation.{key}: must be 0 or more, not {getattr(self, key)}"
                )


class DistillationObjective(Objective):
    """`taichu.training.objectives.Objective`, plus how far the student is from its teacher.

    L = L_data + a T^2 sum_m w_m KL(p_m || q_m) + b mean_e (1 - cos(u_e, v_e)): p and q are the
    teacher's and the student's softmax(z / T) in the range in which token m is decoded, w_m is
    the token's weight in L_data (Hinton et al., section 2: by T^2 the gradients keep their size);
    u and v are both embeddings of each side of the aligned pairs.

    The teacher runs in the same graph. It is not trained: optimizers, and with them checkpoints,
    do not have its parameters.

    Args:
        backbone: the student.
        vocabulary, others: as of `Objective`.
        teacher: of the same vocabulary.
        config: T, and the weights a and b.

    Output: as of `Objective`, with the two distances, before their weights, as further parts.

    Raises:
        ConfigError: the vocabularies differ, or the widths of embeddings that are compared.
    """

    other_passes = "distillation"

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: JointIds,
        *others,
        teacher: Backbone,
        config: DistillationConfig,
    ):
        super().__init__(backbone, vocabulary, *others)
        self.temperature = config.temperature
        self.decoding_weight = config.decoding_weight if self.decoding else 0.0
        self.embedding_weight = config.embedding_weight if self.alignment_weight > 0 else 0.0
        require_alike(self.backbone, teacher, self.embedding_weight > 0)
        for parameter in teacher.get_parameters():
            parameter.requires_grad = False
        self.teacher = Objective(
            teacher, vocabulary, self.embedding_weight, self.decoding_weight > 0
        )
        self.part_names += ("distillation.decoding", "distillation.embedding")

    def construct(self, ids, source, coords, segment, span, *rest):
        planes, patches = (ids, source, coords, segment, span), rest[7:]
        pool, positions, targets, weights, ranges, pair_group, pair_caption = rest[:7]
        taught_ND = ops.stop_gradient(self.teacher.backbone(*planes, *patches))
        taught_FC, taught_MV = self.teacher.predict(taught_ND, pool, positions, pair_group)
        hidden_ND = self.backbone(*planes, *patches)
        found_FC, found_MV = self.predict(hidden_ND, pool, positions, pair_group)
        loss, parts = self.compare(
            found_FC, found_MV, targets, weights, ranges, pair_group, pair_caption
        )
        decoding = embedding = ops.zeros((), ms.float32)
        if self.decoding_weight > 0:
            apart_M = self.divergence(ops.stop_gradient(taught_MV), found_MV, ranges)
            decoding = (apart_M * weights).sum()
        if self.embedding_weight > 0:
            embedding = self.distance(ops.stop_gradient(taught_FC), found_FC, pair_group)
        loss = loss + self.decoding_weight * decoding + self.embedding_weight * embedding
        return loss, ops.concat((parts, decoding.reshape((1,)), embedding.reshape((1,))))

    def divergence(self, taught_MV, found_MV, ranges_M2):
        """T^2 KL(teacher || student) of each row of logits, in its range; (M,)."""
        T = self.temperature
        taught_MV = logs_in(ranges_M2, taught_MV.astype(ms.float32) / T)
        found_MV = logs_in(ranges_M2, found_MV.astype(ms.float32) / T)
        return T * T * (ops.exp(taught_MV) * (taught_MV - found_MV)).sum(-1)

    def distance(self, taught_FC, found_FC, group_E):
        """Mean of 1 - cosine over both sides of the pairs, on all ranks of the data axis as in
        `contrast`."""
        cosine_F = (taught_FC * found_FC).sum(-1)
        used_E = (group_E >= 0).astype(ms.float32)
        share = ops.clamp(self.sum(used_E.sum().reshape((1,))), 1.0).reshape(()) / self.ranks
        return ((1.0 - cosine_F.reshape((-1, 2)).mean(1)) * used_E).sum() / share


def require_alike(student: Backbone, teacher: Backbone, embeddings: bool):
    """Raises: ConfigError: what two backbones predict cannot be compared."""
    if student.vocabulary_size != teacher.vocabulary_size:
        raise ConfigError(
            f"student: its vocabulary has {student.vocabulary_size} ids, "
            f"the teacher's {teacher.vocabulary_size}; they must be the same"
        )
    widths = [backbone.projection.weight.shape[0] for backbone in (student, teacher)]
    if embeddings and widths[0] != widths[1]:
        raise ConfigError(
            f"student.embedding={widths[0]} must be the teacher's {widths[1]}, "
            "or distillation.embedding_weight 0"
        )
