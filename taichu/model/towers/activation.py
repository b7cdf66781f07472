"""The Gaussian error linear unit (Hendrycks and Gimpel, 1606.08415) in three published forms."""

from mindspore import nn, ops


class Gelu(nn.Cell):
    """x times the normal distribution function at x."""

    def construct(self, x):
        return x * (0.5 * ops.erf(x * 0.5**0.5) + 0.5)


class TanhGelu(nn.Cell):
    """Its approximation by a tanh, which is written as a sigmoid: a CPU's tanh is off by 1e-4."""

    def construct(self, x):
        return x * ops.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


class QuickGelu(nn.Cell):
    """Its approximation by a sigmoid, as CLIP has it."""

    def construct(self, x):
        return x * ops.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": Gelu, "gelu_tanh": TanhGelu, "quick_gelu": QuickGelu}
