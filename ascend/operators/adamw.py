"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 1711.05101, algorithm 2)."""

import time

import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import initializer
from mindspore.ops import signature as sig
from mindspore.ops.auto_generate import AdamW as AscendAdamW
from mindspore.ops.operations._sequence_ops import TensorToScalar

from ascend.device_matrix import device_matrix
from ascend.operators.assign import assign
from ascend.operators.clipping import GlobalNorm, clip_factor
from ascend.operators.collectives import GatherRows, collective
from ascend.operators.form import choose_form, device_form, kernel, library
from ascend.operators.gradient_mean import EXPERTS, SHARED, SUMMED, WHOLE, GradientMean
from ascend.precision import has_bfloat16
from ascend.sharding import (
    Place,
    axes_of,
    mark_like,
    on_first_stage,
    place_of,
    splits_of,
    stages_of,
)

# MindSpore nests two calls in each turn of a graph's loop, and allows a thousand: what is done to
# all parameters is done by ops.HyperMap, or so many turns at a time
TURNS = 50


class AdamW(nn.Optimizer):
    """AdamW behind a clipping of the gradients by their global norm.

    ``nn.AdamWeightDecay`` takes several times longer on CPU and leaves out the bias correction.
    Gradients whose norm is not finite change nothing, and do not count as a step. Between ranks
    (`ascend.device_matrix`) gradients are averaged first; where the optimizer is sharded, a replica
    updates its share of a matrix's rows, and all gather them (ZeRO-1).

    Args:
        parameters: list of `Parameter`.
        learning_rate: a number, or one value a step (the schedule).
        beta1, beta2, epsilon: as in the paper.
        weight_decay: decay of the matrices a step, times the learning rate; norms, biases and
            single numbers are left alone.
        clip: largest global norm of the gradients; longer ones are scaled down to it.
        form: see `ascend.operators`.
        rate_factors: what each parameter's rate is multiplied by; None: all by 1.

    Attributes:
        others: further parameters that a checkpoint has to keep.

    Inputs: gradients, in the parameters' order; the scale (1,) that they were multiplied by, if
    any, but for those of parameters that are `marked_unscaled`. Output: their global norm before
    clipping, (1,), without the scale.
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
        rate_factors=None,
    ):
        super().__init__(learning_rate, parameters)
        axis, alone = device_matrix().replica, device_matrix().ranks.size == 1
        self.shared = tuple(shares_update(p) for p in self.parameters)
        self.parts = ms.ParameterTuple([own_rows(p) for p in self.parameters])
        self.first = self.parts.clone(prefix="first_moment", init="zeros")
        self.second = self.parts.clone(prefix="second_moment", init="zeros")
        for prefix, moments in (("first_moment", self.first), ("second_moment", self.second)):
            for moment, part, parameter in zip(moments, self.parts, self.parameters):
                mark_like(moment, part)
                moment.name = f"{prefix}.{parameter.name}"  # however it is shared out
        means = [kind_of_mean(p) for p in self.parameters]
        twice = [len(stages_of(p)) > 1 for p in self.parameters]
        self.mean = GradientMean(tuple(means), tuple(twice))
        self.gather = collective(GatherRows, axis)
        shared = [i for i, a in enumerate(self.shared) if a]
        self.gathered = tuple(tuple(shared[i : i + TURNS]) for i in range(0, len(shared), TURNS))
        self.assign, self.each = assign(), ops.HyperMap()
        decays = tuple(weight_decay * (p.ndim > 1) for p in self.parameters)
        factors = tuple(map(float, rate_factors or [1.0] * len(decays)))
        if form is None and not alone and device_form() == "compiled":
            form = "plain"  # the kernel's norm is of one rank's gradients
        # of what two stages hold the first counts the norm
        kinds = tuple(axes_of(p) if on_first_stage(p) else None for p in self.parts)
        self.update = choose_form(
            form,
            (beta1, beta2, epsilon, clip),
            decays,
            kinds,
            factors,
            plain=PlainUpdate,
            compiled=CompiledUpdate,
            # older chips do not run the condition in it
            ascend=AscendUpdate if has_bfloat16() else PlainUpdate,
        )
        self.no_scale, self.others = ms.Tensor([1.0], ms.float32), ()
        self.unscaled = tuple(getattr(p, "unscaled", False) for p in self.parameters)

    def construct(self, gradients, scale=None):
        return self.update_by(self.mean(tuple(gradients)), scale)

    def update_by(self, gradients, scale):
        """One update by gradients that are the same on all ranks."""
        if scale is None:
            scale = self.no_scale
        else:
            scale_one = ops.partial(self.scale_one, scale)
            gradients = self.each(scale_one, self.unscaled, gradients)
        rate = self.get_lr().reshape((1,))
        state = self.parts, self.first, self.second
        norm = self.update(*state, self.global_step, gradients, rate, scale)
        for gathered in self.gathered:
            norm = self.gather_rows(gathered, norm)
        return norm

    def gather_rows(self, indices: tuple[int, ...], norm):
        """Of parameters, one after the other: no more than one is held twice."""
        for i in indices:
            whole = self.gather(ops.depend(self.parts[i], norm))
            norm = ops.depend(norm, self.assign(self.parameters[i], whole))
        return norm

    def scale_one(self, scale, unscaled: bool, gradient):
        """A gradient that has the scale, as all others."""
        return gradient * scale if unscaled else gradient

    def take_parts(self):
        """Take this rank's rows of what the parameters hold; after they were set from outside."""
        for parameter, part, shared in zip(self.parameters, self.parts, self.shared):
            if shared:
                rows = rows_of(parameter)
                part.set_data(ms.Tensor(parameter.asnumpy()[rows.start : rows.stop]))


def marked_unscaled(parameter: ms.Parameter) -> ms.Parameter:
    """Note on a parameter that its gradient is not the loss's, so has no scale of it."""
    parameter.unscaled = True
    return parameter


def kind_of_mean(parameter: ms.Parameter) -> int:
    """Of `GradientMean`."""
    if shares_update(parameter):
        return SHARED
    axes = axes_of(parameter)
    return SUMMED if "replica" in axes else EXPERTS if "expert" in axes else WHOLE


def shares_update(parameter: ms.Parameter) -> bool:
    """Whether the replicas share out the update of a parameter that each of them holds.

    Experts that ranks share out stay as they are: the more ranks, the fewer each holds.
    """
    size, axes = device_matrix().replica.size, axes_of(parameter)
    if device_matrix().shard == "none" or {"replica", "expert"} & {*axes} or parameter.ndim < 2:
        return False
    return parameter.shape[0] % size == 0


def rows_of(parameter: ms.Parameter) -> range:
    """The rows of such a parameter that this rank updates."""
    axis, n = device_matrix().replica, parameter.shape[0] // device_matrix().replica.size
    return range(axis.index * n, (axis.index + 1) * n)


def own_rows(parameter: ms.Parameter) -> ms.Parameter:
    """The parameter itself, or where its update is shared out one of this rank's rows, which
    `AdamW.take_parts` fills."""
    if not shares_update(parameter):
        return parameter
    rows, place = rows_of(parameter), place_of(parameter)
    shape = (len(rows), *parameter.shape[1:])
    part = ms.Parameter(initializer("zeros", shape, ms.float32), f"{parameter.name}.rows")
    mark_like(part, parameter)
    part.place = Place(place.shape, (place.start[0] + rows.start, *place.start[1:]))
    part.splits = (*splits_of(parameter), (0, "replica"))
    return part


class PlainUpdate(nn.Cell):
    """One update in ordinary operators.

    Args:
        numbers: beta1, beta2, epsilon, and the longest norm.
        decays: weight decay of each parameter.
        kinds: of `GlobalNorm`.
        factors: of each parameter's rate.

    Inputs: parameters, first and second moments (tuples alike), how many steps were made (1,)
    int32, which is written too, gradients, rate and scale (1,).
    """

    def __init__(self, numbers: tuple[float, ...], decays: tuple[float, ...], kinds, factors):
        super().__init__()
        self.beta1, self.beta2, self.epsilon, self.clip = numbers
        self.decays, self.factors = decays, factors
        self.norm, self.assign, self.each = GlobalNorm(kinds), assign(), ops.HyperMap()

    def construct(self, parameters, first, second, steps, gradients, rate, scale):
        norm = self.norm(gradients) / scale
        # numbers without axes, so that parameters that are such numbers stay so
        finite, rate = ops.isfinite(norm).reshape(()), rate.reshape(())
        factor = (clip_factor(norm, self.clip) / scale).reshape(())
        step = (steps + 1).astype(ms.float32).reshape(())
        first_correction = 1.0 - ops.pow(self.beta1, step)
        second_correction = 1.0 - ops.pow(self.beta2, step)
        numbers = finite, rate, factor, first_correction, second_correction
        one = ops.partial(self.update_one, numbers)
        done = self.each(one, parameters, first, second, gradients, self.decays, self.factors)
        return ops.depend(norm, (done, self.assign(steps, steps + finite.astype(ms.int32))))

    def update_one(self, numbers, parameter, first, second, gradient, decay, rate_factor):
        finite, rate, factor, first_correction, second_correction = numbers
        gradient, rate = gradient * factor, rate * rate_factor
        m = self.beta1 * first + (1.0 - self.beta1) * gradient
        v = self.beta2 * second + (1.0 - self.beta2) * gradient * gradient
        deviation = ops.pow(v / second_correction, 0.5) + self.epsilon
        changed = parameter * (1.0 - rate * decay) - rate * (m / first_correction / deviation)
        self.assign(first, ops.where(finite, m, first))
        self.assign(second, ops.where(finite, v, second))
        return self.assign(parameter, ops.where(finite, changed, parameter))


class CompiledUpdate(nn.Cell):
    """The same update by one kernel, which writes the parameters, moments and steps in place."""

    def __init__(self, numbers: tuple[float, ...], decays: tuple[float, ...], kinds, factors):
        super().__init__()
        self.numbers = ms.Tensor(numbers, ms.float32)
        self.settings = ms.Tensor((decays, factors), ms.float32)
        self.kernel = kernel("adamw", lambda *inputs: [1], lambda *inputs: inputs[-1])
        # without these the graph may run the kernel before others have read the old parameters
        self.kernel.add_prim_attr("side_effect_mem", True)
        written = 3 * len(decays) + 1
        signatures = [sig.make_sig(f"w{i}", sig.sig_rw.RW_WRITE) for i in range(written)]
        signatures += [sig.make_sig(f"r{i}") for i in range(len(decays) + 2)]
        self.kernel.set_signatures(tuple(signatures))

    def construct(self, parameters, first, second, steps, gradients, rate, scale):
        written = tuple(parameters) + tuple(first) + tuple(second) + (steps,)
        numbers = ops.concat((self.numbers, rate, scale))
        return self.kernel(*written, *gradients, self.settings, numbers)


class AscendUpdate(nn.Cell):
    """The same update by aclnn's ApplyAdamWV2, a kernel a parameter."""

    def __init__(self, numbers: tuple[float, ...], decays: tuple[float, ...], kinds, factors):
        super().__init__()
        self.beta1, self.beta2, self.epsilon, self.clip = numbers
        self.decays, self.norm = decays, GlobalNorm(kinds)
        self.factors = tuple(sorted(set(factors)))
        self.which = tuple(self.factors.index(factor) for factor in factors)
        self.adamw = AscendAdamW()
        self.assign, self.each = assign(), ops.HyperMap()
        self.number = TensorToScalar()

    def construct(self, parameters, first, second, steps, gradients, rate, scale):
        norm = self.norm(gradients) / scale
        if ops.isfinite(norm):
            factor = clip_factor(norm, self.clip) / scale
            before, rates = steps.astype(ms.float32), ()
            for rate_factor in self.factors:
                rates += (self.number((rate * rate_factor).reshape(())),)
            one = ops.partial(self.update_one, factor, before, rates)
            done = self.each(one, parameters, first, second, gradients, self.decays, self.which)
            norm = ops.depend(norm, (done, self.assign(steps, steps + 1)))
        return norm

    def update_one(self, factor, before, rates, parameter, first, second, gradient, decay, which):
        return self.adamw(
            parameter,
            first,
            second,
            second,  # of AMSGrad, which is off
            gradient * factor,
            before,
            rates[which],
            self.beta1,
            self.beta2,
            decay,
            self.epsilon,
        )


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
            self.count = library().updates

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
