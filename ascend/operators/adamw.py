"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 1711.05101, algorithm 2)."""

import ctypes
import time

import mindspore as ms
from mindspore import nn, ops
from mindspore.ops import signature as sig

from ascend.operators.form import LIBRARY, choose_form, kernel


class AdamW(nn.Optimizer):
    """AdamW behind a clipping of the gradients by their global norm.

    ``nn.AdamWeightDecay`` takes several times longer on CPU and leaves out the bias correction.

    Args:
        parameters: list of `Parameter`.
        learning_rate: a number, or one value a step (the schedule).
        beta1, beta2, epsilon: as in the paper.
        weight_decay: decay of the matrices a step, times the learning rate; norms, biases and
            single numbers are left alone.
        clip: largest global norm of the gradients; longer ones are scaled down to it.
        form: see `ascend.operators`.

    Input: gradients, in the parameters' order. Output: their global norm before clipping, (1,).
    """

    def __init__(
        self,
        parameters,
        learning_rate,
        beta1=0.9,
        beta2=0.98,
        epsilon=1e-8,
        weight_decay=0.01,
        clip=1.0,
        form=None,
    ):
        super().__init__(learning_rate, parameters)
        self.first = self.parameters.clone(prefix="first_moment", init="zeros")
        self.second = self.parameters.clone(prefix="second_moment", init="zeros")
        decayed = tuple(float(p.ndim > 1) for p in self.parameters)
        self.constants = ms.Tensor([beta1, beta2, epsilon, weight_decay, clip], ms.float32)
        self.update = choose_form(PlainUpdate, CompiledUpdate, form, decayed)

    def construct(self, gradients):
        rate = self.get_lr().reshape((1,))
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        step = self.global_step.astype(ms.float32).reshape((1,))
        numbers = ops.concat((rate, self.constants, step))
        return self.update(self.parameters, self.first, self.second, gradients, numbers)


class PlainUpdate(nn.Cell):
    """One update in ordinary operators.

    Inputs: parameters, first and second moments, gradients (tuples alike), numbers (7,): rate,
    beta1, beta2, epsilon, weight decay, clip, and the number of this step from 1.
    """

    def __init__(self, decayed: tuple[float, ...]):
        super().__init__()
        self.decayed = decayed

    def construct(self, parameters, first, second, gradients, numbers):
        rate, beta1, beta2, epsilon = numbers[0], numbers[1], numbers[2], numbers[3]
        decay, clip, step = numbers[4], numbers[5], numbers[6]
        squares = []
        for gradient in gradients:
            squares.append((gradient * gradient).reshape((1, -1)).sum())
        norm = ops.sqrt(ops.stack(squares).sum())
        factor = ops.minimum(clip / (norm + 1e-6), 1.0)
        first_correction = 1.0 - ops.pow(beta1, step)
        second_correction = 1.0 - ops.pow(beta2, step)
        for i in range(len(gradients)):
            gradient = gradients[i] * factor
            m = beta1 * first[i] + (1.0 - beta1) * gradient
            v = beta2 * second[i] + (1.0 - beta2) * gradient * gradient
            change = m / first_correction / (ops.sqrt(v / second_correction) + epsilon)
            keep = 1.0 - rate * decay * self.decayed[i]
            ops.assign(first[i], m)
            ops.assign(second[i], v)
            ops.assign(parameters[i], parameters[i] * keep - rate * change)
        return norm.reshape((1,))


class CompiledUpdate(nn.Cell):
    """The same update by one kernel, which writes the parameters and moments in place."""

    def __init__(self, decayed: tuple[float, ...]):
        super().__init__()
        self.decayed = ms.Tensor(decayed, ms.float32)
        self.kernel = kernel("adamw", lambda *inputs: [1], lambda *inputs: inputs[-1])
        # without these the graph may run the kernel before others have read the old parameters
        self.kernel.add_prim_attr("side_effect_mem", True)
        written = [sig.make_sig(f"w{i}", sig.sig_rw.RW_WRITE) for i in range(3 * len(decayed))]
        read = [sig.make_sig(f"r{i}") for i in range(len(decayed) + 2)]
        self.kernel.set_signatures((*written, *read))

    def construct(self, parameters, first, second, gradients, numbers):
        inputs = tuple(parameters) + tuple(first) + tuple(second) + tuple(gradients)
        return self.kernel(*inputs, self.decayed, numbers)


class UpdateWait:
    """Sleeps until the update that a compiled step has started is done.

    A graph runs beside Python, and MindSpore's next call waits for it in a loop that takes a whole
    core: half of a small machine. On forms and devices without the counting kernel it returns at
    once, and MindSpore waits in its own way.
    """

    def __init__(self, optimizer: AdamW):
        self.count = None
        self.longest = 0.0  # seconds of the longest wait so far
        if isinstance(optimizer.update, CompiledUpdate):
            self.count = ctypes.CDLL(str(LIBRARY)).updates
            self.count.restype = ctypes.c_int64

    def started(self) -> int:
        """To be called before the step; its result goes to `sleep`."""
        return self.count() if self.count else 0

    def sleep(self, before: int):
        """Return soon after the update; also when a graph that failed will never make it."""
        if not self.count:
            return
        start = time.monotonic()
        while self.count() == before:
            waited = time.monotonic() - start
            if waited > 2 * self.longest + 5:
                return
            time.sleep(0.001)
        self.longest = max(self.longest, time.monotonic() - start)
