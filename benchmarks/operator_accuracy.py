"""Tables of the operators: their form and kernels on each device, and their largest errors here.

    python benchmarks/operator_accuracy.py

Kernels on Ascends and GPUs are those that MindSpore selects, as in `taichu ascend check`; nothing
is run there. Errors are of this CPU against NumPy in float64, over the largest number of an array,
rounded up to a power of ten: of an operator's outputs, and of the gradients of all its inputs.
The tables of ascend/README.md are made by this. Needs nothing but taichu.
"""

import argparse
import math
import os
import sys
from pathlib import Path

import numpy as np
from operator_cases import CASES, Assign, Case, draw

DEVICES = {"Ascend": "Ascend 910B and later, bfloat16", "GPU": "NVIDIA GPU, float16"}
MARK = "the operator is"
# elementwise kernels and copies, which say nothing of an operator that has others
# fmt: off
COMMON = (
    "Add", "AddN", "BroadcastTo", "Cast", "CastAll", "ClampScalar", "Concat", "Div", "Equal",
    "EqScalar", "ExpandDims", "FillScalar", "Greater", "GreaterEqual", "Less", "LessEqual",
    "LogicalAnd", "LogicalNot", "LogicalOr", "Minimum", "Mul", "Muls", "Neg", "Reciprocal",
    "Reshape", "Select", "Slice", "SliceGrad", "Split", "Sub", "TensorMove", "TensorToScalar",
    "Tile", "Transpose", "Zeros", "ZerosLike",
)
# fmt: on
RATE = 0.1
STEP = 1e-30
EXACT = 1e-14  # what the reference itself may err
FORMS = {"plain, float32": "plain", "compiled, float32": "compiled", "plain, float16": "plain"}


def main():
    from ascend.device import choose_device

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", choices=DEVICES, help=argparse.SUPPRESS)  # the child's part
    chosen = parser.parse_args()
    if chosen.compile:
        compile_all(chosen.compile)
        return
    choose_device("CPU")
    print("\n".join(table_of_kernels()) + "\n")
    print("\n".join(table_of_errors()))


# ------------------------------------------------------------------------------------- kernels


def compile_all(device: str):
    """Compile every operator and its gradient, with lines between that say which is next."""
    import mindspore as ms

    from ascend.device import set_device
    from ascend.operators import AdamW
    from ascend.precision import choose_precision, compute_type

    set_device(device)
    choose_precision()
    for name, case in CASES.items():
        cell = case.build(None)
        inputs = case.tensors(compute_type())
        tell(name, cell)
        out = ms.jit(cell.construct)(*inputs)
        ms.jit(gradient_of(cell, case))(*inputs, *several(out))
    value = ms.Tensor(draw(4, 3).astype(np.float32))
    cell = Assign(None, draw(4, 3))
    tell("assign", cell)
    ms.jit(cell.construct)(value)
    optimizer = AdamW([ms.Parameter(value, "value")], RATE)
    tell("AdamW", optimizer.update)
    ms.jit(optimizer.construct)((value,))


def tell(name: str, cell):
    # in one piece, or MindSpore's log comes between
    form = type(getattr(cell, "operator", cell)).__name__
    os.write(1, f"{MARK} {name} {form}\n".encode())


def gradient_of(cell, case: Case):
    """A function of a Cell's inputs, then of its outputs' gradients, to its inputs' gradients."""
    from mindspore import ops

    gradient = ops.GradOperation(get_all=True, sens_param=True)
    floats, count = len(case.inputs), len(case.inputs) + len(case.constants)

    def differentiate(*arrays):
        inputs, douts = arrays[:count], arrays[count:]
        found = gradient(cell)(*inputs, douts if len(douts) > 1 else douts[0])
        return found[:floats]

    return differentiate


def kernels_on(device: str) -> dict[str, str]:
    """By operator, its form and what MindSpore selects for it.

    Raises:
        RuntimeError: an operator does not compile, or has none.
    """
    from ascend.kernel_check import cuda, find_faults, selection, standins

    if device == "GPU":
        variables, read_log = cuda.environment(cuda.build_standins()), cuda.read_log
    else:
        variables, read_log = standins.environment(standins.build_standins()), selection.read_log
    found = {}

    def read(lines):
        title, part, raised = None, [], None
        for line in [*lines, MARK]:
            if not line.startswith(MARK):
                part.append(line)
                continue
            kernels, raised = read_log(part)
            if title:
                found[title] = kernels
            title, part = line.removeprefix(MARK).strip(), []
        return selection.Selection(), raised

    words = [sys.executable, str(Path(__file__).resolve()), "--compile", device]
    whole = selection.follow(words, variables, read)
    faults = [f"{title}: {f}" for title, kernels in found.items() for f in find_faults(kernels)]
    if whole.failure or faults:
        raise RuntimeError("; ".join([whole.failure or "", *faults]))
    names = {}
    for title, kernels in found.items():
        operator, form = title.split()
        used = sorted({o for o, kernel in kernels.kernels if kernel != "host"})
        telling = [o for o in used if o not in COMMON] or used
        names[operator] = f"{form}: {', '.join(telling)}"
    return names


def compiled_kernels(name: str) -> str:
    """The form on a CPU, and its C++ kernels."""
    import mindspore as ms
    from mindspore import ops

    from ascend.operators import AdamW

    if name == "AdamW":
        cell = AdamW([ms.Parameter(ms.Tensor(draw(4, 3), ms.float32), "value")], RATE).update
    elif name == "assign":
        cell = Assign(None, draw(4, 3)).operator
    else:
        cell = getattr(cell := CASES[name].build(None), "operator", cell)
    inner = [primitive for part in (cell, *cell.cells()) for primitive in vars(part).values()]
    inner += [p for part in (cell, *cell.cells()) for p in part._primitives.values()]
    kernels = {p.func.split(":")[1] for p in inner if isinstance(p, ops.Custom)}
    return ": ".join([type(cell).__name__, *([", ".join(sorted(kernels))] if kernels else [])])


def table_of_kernels() -> list[str]:
    on = {device: kernels_on(device) for device in DEVICES}
    lines = [f"| operator | {' | '.join(DEVICES.values())} | CPU, float32 |", "|---" * 4 + "|"]
    for name in on["Ascend"]:
        cells = on["Ascend"][name], on["GPU"][name], compiled_kernels(name)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


# -------------------------------------------------------------------------------------- errors


def table_of_errors() -> list[str]:
    ways = list(FORMS)
    head = [f"{way}: output | gradient" for way in ways] + ["Ascend, GPU"]
    lines = [f"| operator | {' | '.join(head)} |", "|---" * (2 * len(ways) + 2) + "|"]
    for name, case in CASES.items():
        found = [errors_of(case, way) for way in ways]
        cells = [power(error) for pair in found for error in pair] + ["not run"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    updates = (power(error_of_adamw(form)) for form in ("plain", "compiled"))
    lines.append(f"| `AdamW`, three steps | {' |  | '.join(updates)} |  |  |  | not run |")
    return lines


def error_of_adamw(form: str) -> float:
    """Of a parameter after three steps with the same gradient, not clipped."""
    import mindspore as ms

    from ascend.operators import AdamW

    value, gradient = draw(8, 6), draw(8, 6)
    parameter = ms.Parameter(ms.Tensor(value, ms.float32), "value")
    beta1, beta2, epsilon, decay = 0.9, 0.98, 1e-6, 0.01
    optimizer = AdamW([parameter], RATE, beta1, beta2, epsilon, decay, clip=1e6, form=form)
    first = second = np.zeros_like(value)
    for t in (1, 2, 3):
        optimizer((ms.Tensor(gradient, ms.float32),))
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        deviation = np.sqrt(second / (1 - beta2**t)) + epsilon
        value = value * (1 - RATE * decay) - RATE * first / (1 - beta1**t) / deviation
    return largest_error([parameter], [value])


def errors_of(case: Case, way: str) -> tuple[float | None, float | None]:
    """The largest errors of a form's outputs and of its gradients; None where it is not there."""
    import mindspore as ms

    from ascend.precision import choose_precision

    form, kind = way.split(", ")
    if form == "compiled" and not case.compiled:
        return None, None
    choose_precision(kind)
    cell = case.build(form)
    inputs = case.tensors(getattr(ms, kind))
    expected = several(case.reference(*case.inputs, *case.constants))
    outputs = several(cell(*inputs))
    weights = [draw(*x.shape) for x in expected]
    douts = [ms.Tensor(w.astype(np.float32), x.dtype) for w, x in zip(weights, outputs)]
    gradients = gradient_of(cell, case)(*inputs, *douts)
    slopes = complex_steps(case, weights)
    choose_precision("float32")
    return largest_error(outputs, expected), largest_error(gradients, slopes)


def complex_steps(case: Case, weights) -> list[np.ndarray]:
    """The gradients of the weighted sum of a reference's outputs, number by number."""
    slopes = []
    for place, x in enumerate(case.inputs):
        slope = np.zeros(x.shape)
        moved = [y.astype(np.complex128) for y in case.inputs]
        for index in np.ndindex(x.shape):
            moved[place][index] += STEP * 1j
            outputs = several(case.reference(*moved, *case.constants))
            slope[index] = sum((y.imag * w).sum() for y, w in zip(outputs, weights)) / STEP
            moved[place][index] = x[index]
        slopes.append(slope)
    return slopes


def several(x) -> tuple:
    return x if isinstance(x, tuple) else (x,)


def largest_error(ours, expected) -> float:
    pairs = [(a.asnumpy().astype(np.float64), b) for a, b in zip(ours, expected)]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


def power(error: float | None) -> str:
    if error is None:
        return ""
    return f"1e{math.ceil(math.log10(error))}" if error > EXACT else "exact"


if __name__ == "__main__":
    main()
