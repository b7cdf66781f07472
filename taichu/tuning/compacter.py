"""Compacter: bottleneck adapters of Kronecker products of low rank (Mahabadi et al., 2106.04647).

Names of dimensions: D width, b of the bottleneck, n products, r their rank, N tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import ops

from ascend import operators
from taichu.errors import ConfigError
from taichu.model.matrices import draw_matrix
from taichu.tuning.bottleneck import LAYERS_ENDS
from taichu.tuning.method import LinearMethod, TunedLinear, linear_maps, replace
from taichu.tuning.patterns import select


@dataclass(frozen=True, kw_only=True)
class Compacter(LinearMethod):
    """The adapters of `taichu.tuning.bottleneck` with W = sum_i A_i x (s_i t_i) (section 3, eq. 5),
    x the Kronecker product; the A_i (n, n) are shared by all adapters, s_i and t_i are of rank r.

    Attributes:
        width: b.
        products: n; divides b and D.
        rank: r.
    """

    targets: tuple[str, ...] = LAYERS_ENDS
    width: int = 64
    products: int = 4
    rank: int = 1

    peft_type: ClassVar[str] = "COMPACTER"
    parts: ClassVar[tuple[str, ...]] = ("rule", "down_left", "down_right", "down_bias")
    parts += ("up_left", "up_right", "up_bias")
    mergeable: ClassVar[bool] = False

    def __post_init__(self):
        if min(self.width, self.products, self.rank) < 1 or self.width % self.products:
            raise ConfigError(f"products={self.products} must divide width={self.width}")

    def attach(self, backbone, weight=None):
        if backbone.width % self.products:
            raise ConfigError(f"products={self.products} must divide the width {backbone.width}")
        n, found = self.products, {}
        rule = draw_matrix((n, n * n), n**-0.5)
        for path in select(self.targets, linear_maps(backbone), "targets"):
            cell = replace(backbone, path, lambda old: CompacterLinear(old, self, rule, weight))
            found |= {f"{path}.{part}": getattr(cell, part) for part in self.parts[1:]}
        return {"rule": rule, **found}

    def wrap(self, linear, path, weight):
        raise NotImplementedError("the adapters share a parameter, and are put in place together")

    def part_shapes(self, outputs, inputs, path):
        D, b, n, r = outputs, self.width, self.products, self.rank
        shapes = (b, r), (n * r, D // n), (b,), (D, r), (n * r, b // n), (D,)
        return dict(zip(self.parts[1:], shapes))

    def shapes(self, backbone, base):
        n = self.products
        return {"rule": (n, n * n), **super().shapes(backbone, base)}

    def acts(self, tensors, base, backbone):
        ends = ("up_right", "up_bias")
        return any(np.any(t) for name, t in tensors.items() if name.endswith(ends))

    def settings(self, backbone):
        return {"width": self.width, "products": self.products, "rank": self.rank}


class CompacterLinear(TunedLinear):
    """A linear map with an adapter behind it; input (N, I), output (N, D).

    Args:
        base: the map.
        method: settings.
        rule: the A_i (n, n * n) of all adapters, row i of it the rows of A_i end to end.
        weight: (1,), how much of what it adds counts; None: all.
    """

    def __init__(self, base, method: Compacter, rule: ms.Parameter, weight: ms.Parameter | None):
        super().__init__(base)
        D, b = self.linear.weight.shape[0], method.width
        n, r = method.products, method.rank
        self.rule, self.products, self.rank = rule, n, r
        # so that the matrix of the way down has entries of variance 1 / D; s and t of all i
        self.down_left = draw_matrix((b, r), r**-0.5)
        self.down_right = draw_matrix((n * r, D // n), D**-0.5)
        self.down_bias = ms.Parameter(np.zeros(b, np.float32))
        self.up_left = draw_matrix((D, r), r**-0.5)
        self.up_right = ms.Parameter(np.zeros((n * r, b // n), np.float32))
        self.up_bias = ms.Parameter(np.zeros(D, np.float32))
        self.matmul, self.batched, self.weight = operators.Matmul(), ops.BatchMatMul(), weight

    def construct(self, x_NI):
        y_ND = self.base(x_NI)
        x_Nb = self.matmul(y_ND, self.product(self.down_left, self.down_right))
        x_Nb = ops.silu(x_Nb + self.down_bias.astype(x_Nb.dtype))
        added_ND = self.matmul(x_Nb, self.product(self.up_left, self.up_right))
        added_ND = added_ND + self.up_bias.astype(added_ND.dtype)
        if self.weight is not None:
            added_ND = added_ND * self.weight.astype(added_ND.dtype)
        return y_ND + added_ND

    def product(self, left, right):
        """sum_i A_i x (s_i t_i), (O, I), of all s_i (O, r) and t_i (n * r, I / n) end to end."""
        n, r = self.products, self.rank
        p, q = left.shape[0] // n, right.shape[1]
        low_npq = self.batched(left.reshape((n, p, r)), right.reshape((n, r, q)))
        # (n * n, p * q): the entry (a, c) of each A_i times its (s_i t_i), summed over i
        blocks = ops.matmul(self.rule.T, low_npq.reshape((n, p * q)))
        return ops.transpose(blocks.reshape((n, n, p, q)), (0, 2, 1, 3)).reshape((n * p, n * q))
