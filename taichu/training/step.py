"""One optimizer step, compiled once: loss, gradients, update."""

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from ascend.loss_scale import LossScale, scale_loss
from ascend.operators import assign
from ascend.operators.adamw import UpdateWait
from ascend.precision import compute_type
from taichu.training.compile_cache import KeptGraph
from taichu.training.recomputation import RecomputedGradient
from taichu.training.stage import Stage


class TrainingStep(nn.Cell):
    """Loss and update of one batch; call it with the arrays of a batch.

    Args:
        objective: Cell whose output is (loss, parts).
        optimizer: an optimizer over the objective's trainable parameters that returns the
            gradients' global norm (`ascend.operators.AdamW`).
        accumulate: batches whose gradients are averaged before one update.
        recompute: whether blocks are computed again for their gradients, in less memory; the
            objective is then a `taichu.training.objectives.Objective`.
        graphs: folder of compiled graphs, see `taichu.training.compile_cache`.

    Where products are computed in float16, the loss is scaled while gradients are taken. A call
    whose gradients are not finite changes no parameter and no moment. Dropout is active in steps
    alone: what is evaluated, embedded or generated meanwhile has none.

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
        self.of_all = ms.value_and_grad(self.scaled, None, optimizer.parameters, has_aux=True)
        self.recomputed = None
        if recompute:
            stage = Stage(objective, self.loss_scale)
            self.recomputed = RecomputedGradient(stage, optimizer.parameters)
        self.calls, self.meanwhile = 0, None
        cells = objective.cells_and_names()
        self.dropouts = [cell for _, cell in cells if isinstance(cell, nn.Dropout)]
        self.wait = UpdateWait(optimizer)
        self.gathered, self.assign, self.each = None, assign(), ops.HyperMap()
        if accumulate > 1:
            self.gathered = optimizer.parameters.clone(prefix="gathered", init="zeros")
        self._update = KeptGraph(self.update, graphs)
        self._gather = KeptGraph(self.gather, graphs)
        self._evaluate = ms.jit(self.evaluated)

    def __call__(self, *arrays):
        self.calls += 1
        if self.calls % self.accumulate:
            return self.with_dropout(self._gather, arrays)
        before = self.wait.started()
        outputs = self.with_dropout(self._update, arrays)
        if self.meanwhile:
            self.meanwhile()
        self.wait.sleep(before)
        return outputs

    def with_dropout(self, graph, arrays):
        """A graph holds what its Cells are set to when it is compiled, by its first call."""
        for dropout in self.dropouts:
            dropout.set_train(True)
        try:
            return graph(*arrays)
        finally:
            for dropout in self.dropouts:
                dropout.set_train(False)

    def evaluate(self, *arrays):
        """(loss, parts) of a batch; nothing is updated."""
        return self._evaluate(*arrays)

    def evaluated(self, *arrays):
        """The graph of `evaluate`."""
        return self.objective(*arrays)

    def gradient(self, *arrays):
        """((what is differentiated, loss, parts), gradients) of a batch."""
        if self.recomputed is None:
            return self.of_all(*arrays)
        value, _, gradients = self.recomputed(None, None, *arrays)
        return value, gradients

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
        mean = self.each(self.mean, self.gathered, gradients)
        return loss, parts, self.optimize_gathered(mean)

    def optimize_gathered(self, mean):
        """Update the parameters by what was gathered, of which nothing is left."""
        norm = self.optimize(mean)
        return ops.depend(norm, self.each(ops.partial(self.clear, norm), self.gathered))

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
