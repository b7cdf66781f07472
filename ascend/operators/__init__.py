"""Operators with more than one form; each function returns the form for the current device.

A form is an ``nn.Cell`` chosen once, when the graph is built. The *plain* form is written in
ordinary differentiable operators and serves every device; on GPUs it is the only one. The
*compiled* form is a C++ kernel for the CPU (``kernels/``) with its gradient, built at installation
where a compiler is present: on a CPU most of a plain step's time goes to elementwise kernels that
such a kernel fuses. The *ascend* form is written in what has an aclnn kernel, fused where there is
one. ``ascend/README.md`` has the table of all of them.
"""

from ascend.operators.adamw import AdamW
from ascend.operators.add_rms_norm import add_rms_norm
from ascend.operators.assign import assign
from ascend.operators.attention import attention
from ascend.operators.collectives import (
    GatherRows,
    GatherWeights,
    ScatterSum,
    SumGradients,
    SumOutputs,
    Swap,
    collective,
)
from ascend.operators.cross_entropy import cross_entropy
from ascend.operators.form import describe_forms
from ascend.operators.largest import largest
from ascend.operators.matmul import Matmul
from ascend.operators.narrow import narrow
from ascend.operators.rotary import normed_rotary, rotary
from ascend.operators.rows import look_up, sum_rows
from ascend.operators.running_sum import running_sum
from ascend.operators.swiglu import swiglu

__all__ = [
    "AdamW",
    "GatherRows",
    "GatherWeights",
    "Matmul",
    "ScatterSum",
    "SumGradients",
    "SumOutputs",
    "Swap",
    "add_rms_norm",
    "assign",
    "attention",
    "collective",
    "cross_entropy",
    "describe_forms",
    "largest",
    "look_up",
    "narrow",
    "normed_rotary",
    "rotary",
    "running_sum",
    "sum_rows",
    "swiglu",
]
