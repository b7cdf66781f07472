"""A feed-forward layer of many experts, of which each token goes to a few.

Names of dimensions: N tokens, D width, E experts, e of them that this rank holds, k experts that a
token chooses, C rows of an expert's room, F hidden width of an expert.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from ascend.device_matrix import device_matrix
from ascend.operators.adamw import marked_unscaled
from taichu.config import ModelConfig
from taichu.model.matrices import draw_experts, draw_matrix

# so few tokens lose none: an expert has room for all of them, as for what is generated
NEVER_DROPPED = 256
BALANCE_GRADIENT = 1e-3  # small beside the other gradients, whose global norm it is part of


class ExpertFeedForward(nn.Cell):
    """The sum of k SwiGLU layers that each token chooses, by their weights.

    Shapes are static (GShard, 2006.16668, section 2.2): each expert has room for C rows, its mean
    load times the config's capacity, and for all N where these are few. All tokens' first choices
    queue before their second ones, in the tokens' order; what finds no place any more is dropped,
    and passes by the residual alone (Switch, 2101.03961, section 2.2). Padding, which would crowd
    one expert, does not queue. Each rank has queues of its own.

    Ranks of the expert axis share out the experts, those of the tensor axis each expert's hidden
    width. What the latter have is summed when it is back at the tokens, where it is smallest; so
    each weight's gradient is summed, too.

    Inputs: x (N, D); the tokens' segments (B, L), 0 for padding, or None where there is none; of
    rows that ranks share, whole. Output: (N, D).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        tensor, self.sequence = device_matrix().tensor, device_matrix().sequence
        self.experts, self.active = config.experts, config.active_experts
        self.capacity = config.expert_capacity
        self.router, self.layers = Router(config), Experts(config)
        self.running_sum = operators.running_sum()
        self.sum_rows, self.look_up = operators.sum_rows(), operators.look_up()
        self.narrow = operators.narrow()
        self.share = operators.collective(operators.SumGradients, tensor)
        self.sum = operators.collective(operators.SumOutputs, tensor)

    def construct(self, x_ND, segment_BL=None):
        (N, D), E, k = x_ND.shape, self.experts, self.active
        C = room(N, E, k, self.capacity)
        is_token_N1 = 1.0 if segment_BL is None else self.tokens_of(segment_BL)
        chosen_kN, taken_kNE, weight_kN = self.router(x_ND, is_token_N1)
        row_X = self.rows_of(chosen_kN.reshape((-1,)), taken_kNE.reshape((-1, E)), C)
        every_XD = ops.concat((self.share(x_ND),) * k, 0)
        # the last row is of what finds no place
        rows_ECD = self.narrow(self.sum_rows(every_XD, row_X, E * C + 1), 0, 0, E * C)
        made_ECD = self.layers(rows_ECD.reshape((E, C, D))).reshape((E * C, D))
        made_ECD = ops.concat((made_ECD, ops.zeros((1, D), made_ECD.dtype)), 0)
        out_kND = self.look_up(made_ECD, row_X).reshape((k, N, D))
        weight_kN1 = self.share(weight_kN).astype(out_kND.dtype).reshape((k, N, 1))
        return self.sum(ops.sum(out_kND * weight_kN1, 0))

    def tokens_of(self, segment_BL):
        """1 for each of this rank's places that holds a token, 0 for padding; (N, 1)."""
        if self.sequence.size > 1:
            share = segment_BL.shape[1] // self.sequence.size
            segment_BL = self.narrow(segment_BL, 1, self.sequence.index * share, share)
        return (segment_BL.reshape((-1, 1)) > 0).astype(ms.float32)

    def rows_of(self, chosen_X, taken_XE, room: int):
        """The row of each choice, (k * N,) int32: room after room, then the one of no place."""
        number_X = ops.sum(taken_XE * self.running_sum(taken_XE), -1).astype(ms.int32)
        queues = ops.logical_and(number_X > 0, number_X <= room)
        return ops.where(queues, chosen_X * room + number_X - 1, self.experts * room)


@ops.constexpr
def room(tokens: int, experts: int, active: int, capacity: float) -> int:
    """Rows that each expert has room for."""
    mean = tokens * active / experts
    return min(tokens, max(NEVER_DROPPED, math.ceil(mean * capacity)))


class Router(nn.Cell):
    """Which experts each token takes and with which weight (DeepSeek-V3, 2412.19437, section 2.1.2,
    equations 12 to 16); in float32.

    A token takes the k experts of the largest score plus balance; the weights are their scores
    alone, made to sum to 1. The balance of an expert that is asked for too often sinks, without a
    loss for it that would work against the model's own (2408.15664). It is a parameter as any
    other, whose gradient is the excess load: AdamW moves it by about the learning rate a step
    however large that gradient is, as the paper does by the excess' sign; and what replicas and
    accumulated batches find is averaged like all gradients, so that all of them count. As it is of
    one dimension, it does not decay; of a float16 loss's scale it knows nothing.

    Inputs: x (N, D); 1 for each token and 0 for padding, (N, 1). Output: the experts (k, N) int32;
    each choice as a row of one 1, padding's as zeros (k, N, E); the weights (k, N).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, E = config.width, config.experts
        self.weight = draw_matrix((E, D), D**-0.5)
        self.balance = marked_unscaled(ms.Parameter(np.zeros(E, np.float32)))
        self.active, self.numbers_E = config.active_experts, ms.Tensor(np.arange(E), ms.int32)
        self.matmul, self.largest = ops.MatMul(transpose_b=True), operators.largest()
        self.balanced = _Balanced()

    def construct(self, x_ND, is_token_N1):
        score_NE = ops.sigmoid(self.matmul(x_ND.astype(ms.float32), self.weight))
        chosen_Nk = self.largest(ops.stop_gradient(score_NE + self.balance), self.active)
        chosen_kN = ops.transpose(chosen_Nk, (1, 0))
        taken_kNE = (ops.expand_dims(chosen_kN, -1) == self.numbers_E).astype(ms.float32)
        weight_kN = ops.sum(taken_kNE * score_NE, -1)
        weight_kN = weight_kN / (ops.sum(weight_kN, 0, True) + 1e-20)
        taken_kNE = taken_kNE * is_token_N1
        load_E = ops.sum(taken_kNE.reshape((-1, taken_kNE.shape[-1])), 0)
        return chosen_kN, taken_kNE, self.balanced(weight_kN, self.balance, load_E)


class _Balanced(nn.Cell):
    """The weights as they are; the gradient of the balance (E,) is the excess of the load (E,)."""

    def construct(self, weight_kN, balance_E, load_E):
        return weight_kN

    def bprop(self, weight_kN, balance_E, load_E, out, dout):
        choices, experts = weight_kN.size, load_E.shape[0]
        # in units of what a batch without padding asks for, so that each token counts alike
        excess_E = (load_E - ops.sum(load_E, 0, True) / experts) * (experts / choices)
        return dout, excess_E * BALANCE_GRADIENT, ops.zeros_like(load_E)


class Experts(nn.Cell):
    """The SwiGLU layer of each expert, over the rows in its room; input and output (E, C, D).

    Of several tensor ranks each has only what its share of the hidden width adds to the output.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, E, F = config.width, config.experts, config.hidden
        self.gate = draw_experts((E, F, D), D**-0.5, "outputs")
        self.up = draw_experts((E, F, D), D**-0.5, "outputs")
        self.down = draw_experts((E, D, F), (2 * config.depth * F) ** -0.5, "inputs")
        self.matmul, self.swiglu = operators.Matmul(batched=True), operators.swiglu()
        expert = device_matrix().expert
        self.to_experts = operators.collective(operators.Swap, expert, 0, 1)
        self.to_tokens = operators.collective(operators.Swap, expert, 1, 0)

    def construct(self, x_ECD):
        x_eCD = self.to_experts(x_ECD)
        gate_eCF, up_eCF = self.matmul(x_eCD, self.gate), self.matmul(x_eCD, self.up)
        e, C, F = gate_eCF.shape
        hidden_NF = self.swiglu(gate_eCF.reshape((e * C, F)), up_eCF.reshape((e * C, F)))
        return self.to_tokens(self.matmul(hidden_NF.reshape((e, C, F)), self.down))
