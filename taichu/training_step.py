"""One optimizer step, compiled once: loss, gradients, update."""

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from ascend.loss_scale import LossScale, scale_loss
from ascend.operators import assign
from ascend.operators.adamw import UpdateWait
from ascend.precision import compute_type
from taichu.compile_cache import KeptGraph
from taichu.recomputation import RecomputedGradient


class TrainingStep(nn.Cell):
    """Loss and update of one batch; call it with the arrays of a batch.

    Args:
        objective: Cell whose output is (loss, parts).
        optimizer: an optimizer over the objective's trainable parameters that returns the
            gradients' global norm (`ascend.operators.AdamW`).
        accumulate: batches whose gradients are averaged before one update.
        recompute: whether blocks are computed again for their gradients, in less memory; the
            objective is then a `taichu.objectives.Objective`.
        graphs: folder of compiled graphs, see `taichu.compile_cache`.

    Where products are computed in float16, the loss is scaled while gradients are taken. A call
    whose gradients are not finite changes no parameter and no moment.

    Attributes:
        meanwhile: called, where it is not None, when an update has been started and is waited for.

    Output: (loss, parts, global norm of the gradients before clipping, (1,); 0 on a call that
        only gathers gradients).
    """

    def __init__(
        self,
        objective: nn.Cell,
        optimizer: nn.Optimizer,
        accumulate: int = 1,
        recompute: bool = False,
        graphs: Path | str | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.objective, self.optimizer = objective, optimizer
        self.accumulate = accumulate
        self.loss_scale = LossScale() if compute_type() == ms.float16 else None
        if recompute:
            self.gradient = RecomputedGradient(objective, optimizer.parameters, self.loss_scale)
        else:
            parameters = optimizer.parameters
            self.gradient = ms.value_and_grad(self.scaled, None, parameters, has_aux=True)
        self.calls, self.meanwhile = 0, None
        self.wait = UpdateWait(optimizer)
        self.gathered, self.assign, self.each = None, assign(), ops.HyperMap()
        if accumulate > 1:
            self.gathered = optimizer.parameters.clone(prefix="gathered", init="zeros")
        self._update = KeptGraph(self.update, graphs)
        self._gather = KeptGraph(self.gather, graphs)

    def __call__(self, *arrays):
        self.calls += 1
        if self.calls % self.accumulate:
            return self._gather(*arrays)
        before = self.wait.started()
        outputs = self._update(*arrays)
        if self.meanwhile:
            self.meanwhile()
        self.wait.sleep(before)
        return outputs

    def scaled(self, *arrays):
        """(what is differentiated, loss, parts)."""
        loss, parts = self.objective(*arrays)
        return scale_loss(loss, self.loss_scale), loss, parts

    def gather(self, *arrays):
        """Add a batch's gradients to those gathered."""
        (_, loss, parts), gradients = self.gradient(*arrays)
        done = self.each(self.add, self.gathered, gradients)
        return loss, parts, ops.depend(ops.zeros((1,), ms.float32), done)

    def add(self, gathered, gradient):
        return self.assign(gathered, gathered + gradient)

    def update(self, *arrays):
        """Gradients of a batch (and those gathered), then one update."""
        (_, loss, parts), gradients = self.gradient(*arrays)
        if self.gathered is None:
            return loss, parts, self.optimize(gradients)
        norm = self.optimize(self.each(self.mean, self.gathered, gradients))
        done = self.each(ops.partial(self.clear, norm), self.gathered)
        return loss, parts, ops.depend(norm, done)

    def mean(self, gathered, gradient):
        return (gathered + gradient) / self.accumulate

    def clear(self, norm, gathered):
        """Once the norm is known, and so the update is made."""
        return self.assign(gathered, ops.depend(ops.zeros_like(gathered), norm))

    def optimize(self, gradients):
        """Update the parameters, and the scale where there is one."""
        if self.loss_scale is None:
            return self.optimizer(gradients)
        norm = self.optimizer(gradients, self.loss_scale.scale)
        return ops.depend(norm, self.loss_scale(norm))
