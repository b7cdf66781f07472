"""AdaLoRA: ranks shared out among linear maps as they earn them (Zhang et al., 2303.10512).

Names of dimensions: n maps, r ranks of each, I inputs, O outputs, X numbers of all parts.
"""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from ascend.operators import AdamW, assign
from taichu.errors import ConfigError
from taichu.model.matrices import draw_matrix
from taichu.tuning.method import LinearMethod, TunedLinear


@dataclass(frozen=True, kw_only=True)
class AdaLora(LinearMethod):
    """W' = W + s P L Q (section 3.1, eq. 3): L (r,) on a diagonal, zero at the start, between P
    (O, r) and Q (r, I), which a penalty keeps orthogonal (eq. 4). The least important entries of L
    are set to zero until as many are left as the budget says (section 3.2).

    Attributes:
        initial_rank: r at the start.
        target_rank: mean rank of a map at the end.
        alpha: s is alpha / initial_rank.
        dropout: as of `taichu.tuning.lora.Lora`.
        steps: updates of the whole training.
        warmup: updates before the budget falls.
        final: updates at the end in which ranks stay as they are shared out.
        interval: updates between two cuts.
        beta1, beta2: of the moving means of sensitivity and of its uncertainty (eq. 9, 10).
        orthogonality: weight of the penalty.
    """

    steps: int
    initial_rank: int = 12
    target_rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    warmup: int = 0
    final: int = 0
    interval: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5

    peft_type: ClassVar[str] = "ADALORA"
    parts: ClassVar[tuple[str, ...]] = ("lora_A", "lora_E", "lora_B")  # Q, L and P

    def __post_init__(self):
        if not 0 < self.target_rank <= self.initial_rank:
            raise ConfigError("target_rank must be from 1 to initial_rank")
        if self.warmup + self.final >= self.steps or self.interval < 1:
            raise ConfigError("warmup and final must leave steps for the ranks to be shared out")

    @property
    def scale(self) -> float:
        return self.alpha / self.initial_rank

    def wrap(self, linear, path, weight):
        return AdaLoraLinear(linear, self)

    def part_shapes(self, outputs, inputs, path):
        r = self.initial_rank
        return {"lora_A": (r, inputs), "lora_E": (r, 1), "lora_B": (outputs, r)}

    def difference(self, path, parts, base):
        scaled_rI = parts["lora_E"] * parts["lora_A"]
        yield f"{path}.weight", self.scale * (parts["lora_B"] @ scaled_rI)

    def optimizer(self, parameters, *settings, **others):
        return AdaLoraAdamW(self, parameters, *settings, **others)

    def settings(self, backbone):
        return {
            "init_r": self.initial_rank,
            "target_r": self.target_rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "total_step": self.steps,
            "tinit": self.warmup,
            "tfinal": self.final,
            "deltaT": self.interval,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "orth_reg_weight": self.orthogonality,
            "bias": "none",
            "fan_in_fan_out": False,
        }

    @classmethod
    def of_settings(cls, content, where):
        names = {
            "init_r": "initial_rank",
            "target_r": "target_rank",
            "lora_alpha": "alpha",
            "lora_dropout": "dropout",
            "total_step": "steps",
            "tinit": "warmup",
            "tfinal": "final",
            "deltaT": "interval",
            "beta1": "beta1",
            "beta2": "beta2",
            "orth_reg_weight": "orthogonality",
        }
        ours = {names.get(key, key): v for key, v in content.items() if key != "r"}
        return super().of_settings(ours, where)


class AdaLoraLinear(TunedLinear):
    """A linear map with a low-rank one in three parts beside it; input (N, I), output (N, O)."""

    def __init__(self, base: nn.Cell, method: AdaLora):
        super().__init__(base)
        outputs, inputs = self.linear.weight.shape
        r = method.initial_rank
        # rows and columns of about unit length, as the penalty wants them
        self.lora_A = draw_matrix((r, inputs), inputs**-0.5)
        self.lora_E = ms.Parameter(np.zeros((r, 1), np.float32))
        self.lora_B = draw_matrix((outputs, r), outputs**-0.5)
        self.matmul, self.scale = operators.Matmul(), method.scale
        self.dropout = nn.Dropout(p=method.dropout)

    def construct(self, x_NI):
        x_Nr = self.matmul(self.dropout(x_NI), self.lora_A)
        x_Nr = x_Nr * self.lora_E.reshape((1, -1)).astype(x_Nr.dtype)
        return self.base(x_NI) + self.matmul(x_Nr * self.scale, self.lora_B)


class AdaLoraAdamW(AdamW):
    """AdamW that adds the penalty's gradient, and shares out the ranks after each update.

    The importance of a rank is that of its entry of L and the means of those of its row of Q and
    column of P (eq. 7); of a number it is its sensitivity |w dL/dw| times the uncertainty of it,
    both as moving means (eq. 8 to 11).

    Args:
        method: settings.
        parameters, settings, others: as of `AdamW`; all matrices have the same initial rank.

    Attributes:
        alive: (n, r) 1 for each rank that was left by the last cut.
    """

    def __init__(self, method: AdaLora, parameters, *settings, **others):
        super().__init__(parameters, *settings, **others)
        self.method = method
        parts = [p.name.rpartition(".")[2] for p in self.parameters]
        kinds = {part: number for number, part in enumerate(method.parts)}
        # of each parameter which part of a map it is, if any
        self.kinds = tuple(kinds.get(part, 3) for part in parts)
        by_name = {p.name: p for p in self.parameters}
        maps = [name.rpartition(".")[0] for name in by_name if name.endswith(".lora_E")]
        r, n = method.initial_rank, len(maps)
        self.entries = ms.ParameterTuple([by_name[f"{name}.lora_E"] for name in maps])
        # all parts end to end are X numbers: of each, whose rank it is and its share of its mean;
        # of other parameters one number stands among them, which is nobody's
        ranks, shares = [], []
        for name, parameter in by_name.items():
            path, _, part = name.rpartition(".")
            if part not in kinds:
                ranks.append(np.full(1, n * r))
                shares.append(np.zeros(1))
                continue
            rank = np.arange(r).reshape((1, -1) if part == "lora_B" else (-1, 1))
            rank = np.broadcast_to(maps.index(path) * r + rank, parameter.shape)
            ranks.append(rank.reshape(-1))
            shares.append(np.full(rank.size, r / rank.size))
        self.rank_X = ms.Tensor(np.concatenate(ranks), ms.int32)
        self.share_X = ms.Tensor(np.concatenate(shares), ms.float32)
        zeros_X = np.zeros(self.rank_X.shape, np.float32)
        self.sensitivity = ms.Parameter(zeros_X, name="sensitivity")
        self.uncertainty = ms.Parameter(zeros_X, name="uncertainty")
        self.alive = ms.Parameter(np.ones((n, r), np.float32), name="alive_ranks")
        self.others = (self.sensitivity, self.uncertainty, self.alive)
        self.final_budget, self.numbers = method.target_rank * n, tuple(range(n))
        self.one_rr = ms.Tensor(np.eye(r), ms.float32)
        self.set_number, self.transposed = assign(), ops.MatMul(transpose_a=True)
        self.sum_rows, self.narrow = operators.sum_rows(), operators.narrow()

    def construct(self, gradients, scale=None):
        if scale is None:
            scale = self.no_scale
        gradients = self.mean(tuple(gradients))
        penalised = ops.partial(self.penalised, scale)
        gradients = self.each(penalised, self.kinds, self.parameters, gradients)
        norm = self.update_by(gradients, scale)
        return ops.depend(norm, self.share_out(gradients, norm, scale))

    def penalised(self, scale, kind: int, part, gradient):
        """The gradient of the loss, plus that of ||Q Q^T - 1||^2 or ||P^T P - 1||^2."""
        if kind == 0:
            excess = ops.matmul(ops.matmul(part, part.T) - self.one_rr, part)
        elif kind == 2:
            excess = ops.matmul(part, self.transposed(part, part) - self.one_rr)
        else:
            return gradient
        return gradient + 4 * self.method.orthogonality * excess * scale

    def share_out(self, gradients, norm, scale):
        """Note how important the ranks are, and set to zero those that are cut."""
        values_X = ops.concat(self.each(self.flatten, self.kinds, self.parameters))
        gradient_X = ops.concat(self.each(self.flatten, self.kinds, gradients))
        values_X = ops.depend(values_X, norm)
        score_X = self.importance(ops.abs(values_X * gradient_X / scale), norm)
        scores_X1 = (score_X * self.share_X).reshape((-1, 1))
        scores = self.sum_rows(scores_X1, self.rank_X, self.alive.size + 1)
        scores_nr = self.narrow(scores, 0, 0, self.alive.size).reshape(self.alive.shape)
        alive_nr, cut = self.cut(scores_nr, ops.depend(self.global_step, norm))
        done = self.each(ops.partial(self.clear, alive_nr, cut, norm), self.numbers, self.entries)
        return done, self.set_number(self.alive, alive_nr)

    def flatten(self, kind: int, x):
        flat = x.reshape((-1,))
        return self.narrow(flat, 0, 0, 1) if kind == 3 else flat

    def importance(self, change_X, norm):
        """The product of both moving means, which are noted."""
        finite, method = ops.isfinite(norm).reshape(()), self.method
        before_X, spread_X = self.sensitivity, self.uncertainty
        mean_X = method.beta1 * before_X + (1 - method.beta1) * change_X
        new_X = method.beta2 * spread_X + (1 - method.beta2) * ops.abs(change_X - mean_X)
        mean_X, new_X = ops.where(finite, mean_X, before_X), ops.where(finite, new_X, spread_X)
        noted = self.set_number(before_X, mean_X), self.set_number(spread_X, new_X)
        return ops.depend(mean_X * new_X, noted)

    def clear(self, alive_nr, cut, norm, n: int, entries):
        """Set to zero the entries of L that are not alive, where it is time."""
        entries_r1 = ops.depend(entries, norm)
        kept = ops.where(cut, entries_r1 * alive_nr[n].reshape((-1, 1)), entries_r1)
        return self.set_number(entries, kept)

    def cut(self, scores_nr, step):
        """(1 for each rank that is left (n, r), whether others are to be zero now)."""
        method, total = self.method, self.alive.size
        step = step.reshape(()).astype(ms.float32)
        last = method.steps - method.final
        falling = ops.logical_and(step > method.warmup, step < last)
        due = ops.floor((step - method.warmup) / method.interval) * method.interval
        due = ops.logical_and(falling, due == step - method.warmup)
        left = ops.clamp((step - method.warmup) / (last - method.warmup), 0.0, 1.0)
        fall = total - self.final_budget
        budget = ops.ceil(self.final_budget + fall * (1.0 - left) ** 3)  # eq. 12
        # ranks that are more important, or as important and stand before
        flat, place = scores_nr.reshape((-1,)), ops.arange(total)
        above = flat.reshape((1, -1)) > flat.reshape((-1, 1))
        before = place.reshape((1, -1)) < place.reshape((-1, 1))
        equal = ops.logical_and(flat.reshape((1, -1)) == flat.reshape((-1, 1)), before)
        order = ops.logical_or(above, equal).astype(ms.float32).sum(1)
        chosen_nr = (order < budget).astype(ms.float32).reshape(self.alive.shape)
        due = ops.logical_or(due, step == last)
        alive_nr = ops.where(due, chosen_nr, self.alive)
        return alive_nr, ops.logical_or(due, step >= last)
