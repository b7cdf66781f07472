"""Clipping of gradients by their global norm (Pascanu et al., 1211.5063, section 3.2)."""

from mindspore import ops


def global_norm(gradients):
    """Euclidean norm of a tuple of tensors taken as one vector, (1,) float32."""
    squares = ()
    for gradient in gradients:
        squares += (ops.sum(gradient * gradient).reshape((1,)),)
    return ops.pow(ops.sum(ops.concat(squares), 0, True), 0.5)


def clip_factor(norm, longest):
    """What a gradient of this norm is to be multiplied by, so that it is no longer than that."""
    return ops.clamp(longest / (norm + 1e-6), None, 1.0)
