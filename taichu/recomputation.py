"""Gradients that keep only what passes between blocks (Chen et al., 1604.06174, section 4.1).

Each block is computed again when its gradient is due: a third more work, and of all that blocks
compute inside, one block's share is held at a time.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend import operators
from ascend.loss_scale import LossScale, scale_loss
from taichu.errors import ConfigError
from taichu.objectives import Objective


class RecomputedGradient(nn.Cell):
    """What ``value_and_grad`` gives of an objective's scaled loss, in less memory.

    ``Cell.recompute()`` does not serve: a graph's first run on the CPU does not keep to the order
    that it asks for, and holds what was to be freed. Here a block is computed again from what
    comes back from behind it, which no order can change.

    Args:
        objective: the loss and the backbone in it.
        parameters: those whose gradients are wanted, in order.
        loss_scale: what the loss is multiplied by while gradients are taken; None: nothing.

    Inputs: the arrays of a `PackedBatch`. Output: ((scaled loss, loss, parts), gradients).

    Raises:
        ConfigError: the objective is another, such as a codec's.
    """

    def __init__(self, objective: Objective, parameters, loss_scale: LossScale | None = None):
        super().__init__(auto_prefix=False)
        if not isinstance(objective, Objective):
            raise ConfigError("train.recompute: only the backbone's blocks can be recomputed")
        self.objective, self.backbone = objective, objective.backbone
        self.loss_scale, self.narrow = loss_scale, operators.narrow()
        self.in_block = [ms.ParameterTuple(b.trainable_params()) for b in self.backbone.blocks]
        found = [p.name for held in self.in_block for p in held]
        self.outside = ms.ParameterTuple([p for p in parameters if p.name not in set(found)])
        self.backwards = tuple(reversed(range(len(self.in_block))))
        found += [p.name for p in self.outside]
        self.places = tuple(found.index(p.name) for p in parameters)
        self.each = ops.HyperMap()
        self.through = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)
        self.of_loss = ms.value_and_grad(self.finish, (0, 1), self.outside, has_aux=True)

    def construct(
        self,
        ids,
        source,
        coords,
        segment,
        span,
        pool,
        positions,
        targets,
        weights,
        ranges,
        pair_group,
        pair_caption,
        *patches,
    ):
        others = (pool, positions, targets, weights, ranges, pair_group, pair_caption)
        where = (*self.backbone.turn(coords), segment, span)
        x_ND, branch_ND = self.backbone.read_tokens(ids, source, *patches)
        kept = []
        for block in self.backbone.blocks:
            kept.append((x_ND, branch_ND))
            x_ND, branch_ND = block(x_ND, branch_ND, *where)
        value, (returned, of_outside) = self.of_loss(x_ND, branch_ND, *others)
        found = ()
        for b in self.backwards:
            x_ND = kept[b][0] + nothing_of(self.narrow(returned[0], 0, 0, 1))
            of_inputs, of_block = self.through(self.backbone.blocks[b], self.in_block[b])(
                x_ND, kept[b][1], *where, returned
            )
            returned = of_inputs[:2]
            found = (*of_block, *found)
        _, of_reading = self.through(self.backbone.read_tokens, self.outside)(
            ids, source, *patches, returned
        )
        found = (*found, *self.each(ops.add, of_outside, of_reading))
        return value, self.each(ops.partial(self.pick, found), self.places)

    def pick(self, found, place: int):
        return found[place]

    def finish(self, x_ND, branch_ND, *others):
        """(scaled loss, loss, parts) of what the last block returned."""
        hidden_ND = self.backbone.normalise(x_ND, branch_ND)
        hidden_ND = self.backbone.all_tokens(hidden_ND, others[0].shape[1])
        loss, parts = self.objective.loss(hidden_ND, *others)
        return scale_loss(loss, self.loss_scale), loss, parts


def nothing_of(first_D):
    """A zero (1, D) that is computed from a row."""
    return ops.clamp(ops.abs(first_D), None, 0.0)
