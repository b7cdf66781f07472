"""Show what a recipe would run on an Ascend; no Ascend is needed.

`check` compiles the recipe's graphs (training step, prefill, decode, codec) for an Ascend with
MindSpore's own selection of kernels, over stand-ins of CANN's libraries that are built on the spot
(g++ and binutils), and shows the kernel of every operator. It fails on an operator without a
kernel or with a legacy one (aclop). It proves nothing of numbers, memory or CANN's own limits.
With `--chip GPU` it does the same with MindSpore's CUDA plug-in, of one GPU.

examples:
  taichu ascend check pretrain
  taichu ascend check recipes/pretrain.yaml model=3.8b --graph step --chip Ascend910_9391
  taichu ascend check pretrain parallel.tensor=2 --devices 8 --graph step"""

import argparse
import sys
from collections import Counter

from taichu.command_line.train import add_recipe, load_recipe
from taichu.errors import TaichuError


def add_options(parser: argparse.ArgumentParser):
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="show the kernel of every operator, and fail where one is missing",
        description=__doc__,
    )
    add_recipe(check)
    check.add_argument(
        "--graph",
        action="append",
        metavar="NAME",
        help="step, prefill, decode or codec; may be repeated (default: all the recipe runs)",
    )
    check.add_argument(
        "--chip", default="Ascend910B2", metavar="NAME", help="as CANN names it; or GPU"
    )
    check.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="compile the training step for each of N ranks on the recipe's device matrix",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace):
    from ascend.kernel_check import find_faults
    from taichu.command_line.dry_compile import GRAPHS, graphs_of

    _, config = load_recipe(options.recipe, options.overrides)
    if options.devices < 1:
        raise TaichuError(f"--devices {options.devices}: must be 1 or more")
    if options.chip == "GPU" and options.devices > 1:
        raise TaichuError(f"--devices {options.devices}: with --chip GPU there is one")
    names = options.graph or graphs_of(config)
    for name in names:
        if name not in GRAPHS:
            raise TaichuError(f"--graph {name}: unknown; there are {', '.join(GRAPHS)}")
    if options.devices > 1 and not hasattr(config, "parallel"):
        raise TaichuError(f"--devices {options.devices}: the recipe has no key 'parallel'")
    found, faults = {}, []
    for name in names:
        print(f"compiling {name} for {options.chip} ...", file=sys.stderr, flush=True)
        ranks = options.devices if name == "step" else 1
        stages = config.parallel.pipeline if ranks > 1 else 1
        for rank in range(ranks):
            selection = select(options, name, rank, ranks)
            of = f"{name}, rank {rank}" if ranks > 1 else name
            faults += [f"{of}: {fault}" for fault in find_faults(selection)]
            column = f"{name} {rank * stages // ranks}" if stages > 1 else name
            if found.setdefault(column, selection).kernels != selection.kernels:
                faults.append(f"{of}: other kernels than the first rank's of its stage")
    print_table(found)
    if faults:
        raise TaichuError("; ".join(faults))
    nodes = sum(selection.count for selection in found.values())
    print(f"\nall {nodes:,} operators of {len(found)} graphs have a kernel on {options.chip}")


def select(options: argparse.Namespace, graph: str, rank: int, ranks: int):
    """The kernels of a graph of the recipe, on one rank."""
    from ascend.kernel_check import select_kernels
    from ascend.kernel_check.cuda import select_cuda_kernels

    device = "GPU" if options.chip == "GPU" else "Ascend"
    command = [
        sys.executable,
        "-m",
        "taichu.command_line.dry_compile",
        device,
        graph,
        options.recipe,
    ]
    command += options.overrides
    if device == "GPU":
        return select_cuda_kernels(command)
    return select_kernels(command, options.chip, rank, ranks)


def print_table(found: dict):
    """Operators by kernel, with the number of nodes in each graph."""
    from ascend.kernel_check.verdict import ALLOWED

    rows = Counter(key for selection in found.values() for key in selection.kernels)
    order = sorted(rows, key=lambda row: (row[1], row[0]))
    names = list(found)
    print(f"{'operator':<28}{'kernel':<10}" + "".join(f"{name:>9}" for name in names))
    for operator, kernel in order:
        counts = (found[name].kernels.get((operator, kernel), 0) for name in names)
        line = f"{operator:<28}{kernel:<10}" + "".join(f"{n or '':>9}" for n in counts)
        print((line + "  " + ALLOWED.get((operator, kernel), "")).rstrip())
