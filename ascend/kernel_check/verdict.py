"""What a selection of kernels is held against."""

from ascend.kernel_check.selection import Selection

GOOD = ("aclnn", "cuda", "hccl", "host", "runtime", "internal")

# operators that may have another kernel, and why
ALLOWED = {
    ("TensorMove", "aclop"): "MindSpore's own copy of a parameter that a graph reads and writes",
    ("TensorToScalar", "cpu"): "the learning rate, read once a step: AdamW's kernel wants a number",
}


def find_faults(selection: Selection) -> list[str]:
    """One line a fault: an operator without a kernel, a legacy one, or a child that failed."""
    faults = []
    for (operator, kernel), count in sorted(selection.kernels.items()):
        if kernel in GOOD or (operator, kernel) in ALLOWED:
            continue
        nodes = f"{operator} ({count} node{'s' * (count > 1)})"
        if kernel == "aclop":
            faults.append(f"{nodes}: legacy kernel (aclop); take an operator that has aclnn's")
        elif kernel == "none":
            faults.append(f"{nodes}: MindSpore selects no kernel")
        else:
            faults.append(f"{nodes}: runs on {kernel}, not on the chip")
    if selection.failure:
        faults.append(f"the graph was not compiled: {selection.failure}")
    elif not selection.count:
        faults.append("no graph was compiled")
    return faults
