"""Products with weights, in the compute type."""

from mindspore import nn, ops

from ascend.precision import compute_type


class Matmul(nn.Cell):
    """x W^T, both cast to the compute type of `ascend.precision`; one form serves every device.

    Args:
        batched: whether x and W are each several matrices, as many of both.

    Inputs: x (N, I), W (O, I), in any float type. Output: (N, O) in the compute type. Batched: of
    x (E, N, I) and W (E, O, I) it is (E, N, O).
    """

    def __init__(self, batched: bool = False):
        super().__init__()
        self.type = compute_type()
        self.matmul = (ops.BatchMatMul if batched else ops.MatMul)(transpose_b=True)

    def construct(self, x_NI, weight_OI):
        return self.matmul(x_NI.astype(self.type), weight_OI.astype(self.type))
