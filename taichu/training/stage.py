"""What one stage of a pipeline has of an objective; without a pipeline, all of it."""

import mindspore as ms
from mindspore import nn, ops

from ascend.loss_scale import LossScale, scale_loss
from taichu.errors import ConfigError
from taichu.training.objectives import Objective


class Stage(nn.Cell):
    """A stage: it reads tokens or receives what the stage before sends, runs its blocks, and sends
    on what they return or takes the loss.

    What is sent is one (N, D), of the compute type: the sum that a block would make first.

    Args:
        objective: the loss and the backbone in it.
        loss_scale: what the loss is multiplied by while gradients are taken; None: nothing.

    Raises:
        ConfigError: the objective is another, such as a codec's, or needs what a stage has not.
    """

    def __init__(self, objective: Objective, loss_scale: LossScale | None = None):
        super().__init__(auto_prefix=False)
        if not isinstance(objective, Objective):
            raise ConfigError("train.recompute: only the backbone's blocks can be recomputed")
        if objective.other_passes:
            what = objective.other_passes
            raise ConfigError(f"train.recompute and parallel.pipeline: not with {what}")
        dropouts = [c for _, c in objective.cells_and_names() if isinstance(c, nn.Dropout)]
        if any(dropout.p for dropout in dropouts):
            raise ConfigError("train.recompute: not with dropout, whose masks would differ")
        if objective.backbone.prefix is not None:
            raise ConfigError("train.recompute and parallel.pipeline: not with a prefix or prompts")
        self.objective, self.backbone = objective, objective.backbone
        self.loss_scale, self.before = loss_scale, objective.before_patches

    def start(self, received_ND, ids_BL, source_BL, *patches_NP):
        """The two (N, D) that the first block adds."""
        if self.backbone.reads:
            return self.backbone.read_tokens(ids_BL, source_BL, *patches_NP)
        return received_ND, ops.zeros_like(received_ND)

    def run(self, received_ND, *arrays):
        """The two (N, D) that the last block returns."""
        x_ND, branch_ND = self.start(received_ND, arrays[0], arrays[1], *arrays[self.before :])
        return self.backbone.run_blocks(x_ND, branch_ND, *arrays[2:5])

    def loss(self, x_ND, branch_ND, *others):
        """(loss, parts) of what the last block returns; ``others`` are a batch's arrays
        between the `PLANES` and the patches."""
        hidden_ND = self.backbone.normalise(x_ND, branch_ND)
        hidden_ND = self.backbone.all_tokens(hidden_ND, others[0].shape[1])
        return self.objective.loss(hidden_ND, *others)

    def finish(self, x_ND, branch_ND, returned_ND, *others):
        """(what is differentiated, loss, parts); ``returned_ND`` is the gradient of what was sent
        on, and nothing where the loss is taken."""
        if self.backbone.ends:
            loss, parts = self.loss(x_ND, branch_ND, *others)
            return scale_loss(loss, self.loss_scale), loss, parts
        # a number whose gradient in what was sent is the one that came back
        sent_ND = (x_ND + branch_ND).astype(ms.float32)
        product = (sent_ND * returned_ND.astype(ms.float32)).sum()
        parts = ops.zeros((2 + self.objective.modalities,), ms.float32)
        return product, ops.zeros((), ms.float32), parts


class StageGradient(nn.Cell):
    """Gradients of a stage.

    Args:
        stage: the stage.
        parameters: those whose gradients are wanted, in order.

    Inputs: what was received (N, D), the gradient of what was sent on (N, D), and the arrays of a
    batch. Output: (what is differentiated, loss, parts), the gradient of what was received,
    gradients of the parameters.
    """

    def __init__(self, stage: Stage, parameters):
        super().__init__(auto_prefix=False)
        self.stage, self.before = stage, stage.before
        self.of_all = ms.value_and_grad(self.whole, 0, parameters, has_aux=True)

    def construct(self, received_ND, returned_ND, *arrays):
        value, (of_received, gradients) = self.of_all(received_ND, returned_ND, *arrays)
        return value, of_received, gradients

    def whole(self, received_ND, returned_ND, *arrays):
        x_ND, branch_ND = self.stage.run(received_ND, *arrays)
        return self.stage.finish(x_ND, branch_ND, returned_ND, *arrays[5 : self.before])
