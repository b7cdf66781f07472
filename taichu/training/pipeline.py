"""The training step of one stage of a pipeline (GPipe, 1811.06965, section 2).

The batches that make an update go through the stages one behind the other, and their gradients come
back in the same order: of m batches over p stages a share of (p - 1) / (m + p - 1) of the time is
spent waiting. Of each batch a stage keeps what it received, and computes its blocks again when
their gradients are due. Python calls small graphs, so that what is compiled does not grow with
the number of batches.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from ascend.device_matrix import device_matrix
from ascend.operators.neighbours import Receive, SendOn
from taichu.training.recomputation import RecomputedGradient
from taichu.training.stage import Stage, StageGradient
from taichu.training.step import TrainingStep


class PipelineStep(TrainingStep):
    """What a `TrainingStep` is where the device matrix has a pipeline.

    Its losses are means over the batches of an update, known to all stages. A call that makes no
    update returns nothing.

    Raises:
        ConfigError: the objective has no blocks to be shared out, such as a codec's.
    """

    def __init__(
        self,
        objective: nn.Cell,
        optimizer: nn.Optimizer,
        accumulate: int = 1,
        recompute: bool = False,
    ):
        super().__init__(objective, optimizer, accumulate)
        self.stage = Stage(objective, self.loss_scale)
        gradient = RecomputedGradient if recompute else StageGradient
        self.of_stage = gradient(self.stage, optimizer.parameters)
        if self.gathered is None:
            self.gathered = optimizer.parameters.clone(prefix="gathered", init="zeros")
        # the loss and its parts, of the batches so far
        seen = ms.Tensor(np.zeros(3 + objective.modalities, np.float32))
        self.seen = ms.Parameter(seen, "seen", requires_grad=False)
        pipeline, backbone = device_matrix().pipeline, objective.backbone
        self.first, self.last = pipeline.first, pipeline.last
        self.width, self.type, self.shares = backbone.width, backbone.matmul.type, backbone.shares
        if not self.first:
            self.from_before, self.to_before = Receive(-1), SendOn(-1)
        if not self.last:
            self.from_behind, self.to_behind = Receive(1), SendOn(1)
        self.sum_stages = operators.SumOutputs(pipeline)
        self.narrow = operators.narrow()
        self.waiting = []
        self._pass_on, self._pass_back = ms.jit(self.pass_on), ms.jit(self.pass_back)
        # a graph of its own: stages' other graphs differ, and with them the order of collectives
        self._finish, self._tell = ms.jit(self.finish), ms.jit(self.tell)

    def __call__(self, *arrays):
        self.calls += 1
        self.waiting.append((self._pass_on(*arrays), arrays))
        if self.calls % self.accumulate:
            return None
        for received, arrays in self.waiting:
            self._pass_back(received, *arrays)
        self.waiting = []
        seen, norm = self._finish()
        if self.meanwhile:
            self.meanwhile()
        return (*self._tell(seen), norm)

    def evaluate(self, *arrays):
        return self._tell(self._evaluate(self._pass_on(*arrays), *arrays))

    def evaluated(self, received_ND, *arrays):
        seen = ops.zeros((3 + self.objective.modalities,), ms.float32)
        if self.last:
            loss, parts = self.stage.loss(
                *self.stage.run(received_ND, *arrays), *arrays[5 : self.stage.before]
            )
            seen = ops.concat((loss.reshape((1,)), parts))
        return seen

    def pass_on(self, *arrays):
        """What was received of a batch (N, D), when what this stage makes of it is on its way."""
        received_ND = ops.zeros((1, self.width), self.type)
        if not self.first:
            received_ND = self.from_before(self.hidden_shape(arrays[0]), self.type)
        if self.last:
            return received_ND
        x_ND, branch_ND = self.stage.run(received_ND, *arrays)
        return ops.depend(received_ND, self.to_behind((x_ND + branch_ND).astype(self.type)))

    def pass_back(self, received_ND, *arrays):
        """Add a batch's gradients to those gathered, and its loss to those seen."""
        returned_ND = received_ND
        if not self.last:
            returned_ND = self.from_behind(self.hidden_shape(arrays[0]), self.type)
        value, of_received_ND, gradients = self.of_stage(received_ND, returned_ND, *arrays)
        seen = ops.concat((value[1].reshape((1,)), value[2]))
        done = self.assign(self.seen, self.seen + seen)
        if not self.first:
            done = ops.depend(done, self.to_before(of_received_ND.astype(self.type)))
        return ops.depend(done, self.each(self.add, self.gathered, gradients))

    def finish(self):
        """Update by the mean of what was gathered."""
        norm = self.optimize_gathered(self.each(self.share_of, self.gathered))
        seen = self.seen / self.accumulate
        return seen, ops.depend(norm, self.assign(self.seen, ops.zeros_like(seen)))

    def share_of(self, gathered):
        return gathered / self.accumulate

    def tell(self, seen):
        """(loss, parts) of the row of both that the last stage has; others have zeros."""
        seen = self.sum_stages(seen)
        parts = seen.shape[0] - 1
        return self.narrow(seen, 0, 0, 1).reshape(()), self.narrow(seen, 0, 1, parts)

    def hidden_shape(self, ids_BL):
        """Of what passes between stages."""
        return ids_BL.shape[0] * ids_BL.shape[1] // self.shares, self.width


def make_training_step(
    objective, optimizer, accumulate: int = 1, recompute: bool = False, graphs=None
) -> TrainingStep:
    """The training step of this rank's place on the device matrix; see `TrainingStep`."""
    if device_matrix().pipeline.size > 1:
        return PipelineStep(objective, optimizer, accumulate, recompute)
    return TrainingStep(objective, optimizer, accumulate, recompute, graphs)
