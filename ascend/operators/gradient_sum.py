"""The sum of gradients of what a network uses more than once.

MindSpore's differentiation writes it as AddN, which has a legacy kernel alone on Ascend; Add has an
aclnn one.
"""

from mindspore import ops
from mindspore.ops.composite.multitype_ops import add_impl


def sum_gradients_by_add():
    """Let every graph that this process compiles from now on sum gradients by Add."""

    @add_impl._add_backward.register("Tensor", "Tensor")
    def _add(x, y):
        return ops.add(x, y)
