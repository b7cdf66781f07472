"""A product with a weight, in the compute type."""

from mindspore import nn, ops

from ascend.precision import compute_type


class Matmul(nn.Cell):
    """x W^T, both cast to the compute type of `ascend.precision`; one form serves every device.

    Inputs: x (N, I), W (O, I), in any float type. Output: (N, O) in the compute type.
    """

    def __init__(self):
        super().__init__()
        self.type = compute_type()
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x_NI, weight_OI):
        return self.matmul(x_NI.astype(self.type), weight_OI.astype(self.type))
