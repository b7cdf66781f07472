"""Gradients that keep only what passes between blocks (Chen et al., 1604.06174, section 4.1).

Each block is computed again when its gradient is due: a third more work, and of all that blocks
compute inside, one block's share is held at a time.
"""

import mindspore as ms
from mindspore import nn, ops

from ascend.operators.order import After
from taichu.errors import ConfigError
from taichu.training.stage import Stage


class RecomputedGradient(nn.Cell):
    """What `taichu.training.stage.StageGradient` gives, in less memory.

    ``Cell.recompute()`` does not serve: a graph's first run on the CPU does not keep to the order
    that it asks for, and holds what was to be freed. Here a block is computed again from what
    comes back from behind it, which no order can change.

    Args:
        stage: the stage, or all of an objective.
        parameters: those whose gradients are wanted, in order.

    Raises:
        ConfigError: blocks share parameters.

    Inputs and output: as there; where there is no other stage, nothing is received or returned.
    """

    def __init__(self, stage: Stage, parameters):
        super().__init__(auto_prefix=False)
        self.stage, self.backbone, self.before = stage, stage.backbone, stage.before
        self.after = After()
        self.blocks = self.backbone.own_blocks
        self.in_block = [
            ms.ParameterTuple(self.backbone.blocks[n].trainable_params()) for n in self.blocks
        ]
        inside = [p for held in self.in_block for p in held]
        place = {p.name: n for n, p in enumerate(inside)}
        if len(place) < len(inside):
            raise ConfigError("train.recompute: not where blocks share parameters (Compacter)")
        self.outside = ms.ParameterTuple([p for p in parameters if p.name not in place])
        self.backwards = tuple(reversed(range(len(self.in_block))))
        place |= {p.name: len(inside) + n for n, p in enumerate(self.outside)}
        self.places = tuple(place[p.name] for p in parameters)
        self.each = ops.HyperMap()
        self.through = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)
        self.of_loss = ms.value_and_grad(stage.finish, (0, 1), self.outside, has_aux=True)

    def construct(self, received_ND, returned_ND, *arrays):
        where = (*self.backbone.turn(arrays[2]), arrays[3], arrays[4])
        x_ND, branch_ND = self.stage.start(
            received_ND, arrays[0], arrays[1], *arrays[self.before :]
        )
        kept = []
        for n in self.blocks:
            kept.append((x_ND, branch_ND))
            x_ND, branch_ND = self.backbone.blocks[n](x_ND, branch_ND, *where)
        value, returned, of_outside = self.end(
            x_ND, branch_ND, returned_ND, arrays[5 : self.before]
        )
        found = ()
        for b in self.backwards:
            x_ND = self.after(kept[b][0], returned[0])
            of_inputs, of_block = self.through(
                self.backbone.blocks[self.blocks[b]], self.in_block[b]
            )(x_ND, kept[b][1], *where, returned)
            returned = of_inputs[:2]
            found = (*of_block, *found)
        if self.backbone.reads:
            _, of_reading = self.through(self.backbone.read_tokens, self.outside)(
                arrays[0], arrays[1], *arrays[self.before :], returned
            )
            of_outside = self.sum(of_outside, of_reading)
        found = (*found, *of_outside)
        return value, returned[0], self.each(ops.partial(self.pick, found), self.places)

    def pick(self, found, place: int):
        return found[place]

    def end(self, x_ND, branch_ND, returned_ND, others):
        """What `Stage.finish` gives, gradients of what the last block returned, and those of the
        parameters behind it."""
        if self.backbone.ends:
            value, (returned, of_outside) = self.of_loss(x_ND, branch_ND, returned_ND, *others)
            return value, returned, of_outside
        value = self.stage.finish(x_ND, branch_ND, returned_ND, *others)
        return value, (returned_ND, returned_ND), ()

    def sum(self, of_end, of_reading):
        if not self.backbone.ends:
            return of_reading
        return self.each(ops.add, of_end, of_reading)
