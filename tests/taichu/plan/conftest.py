"""Training steps compiled for an Ascend that is not there, and what their graphs and MindSpore's
own account of memory say."""

import csv
import functools
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mindspore.train import anf_ir_pb2 as ir

from ascend.kernel_check.standins import build_standins, environment, missing_tool
from ascend.rates import find_device_type
from taichu.command_line.train import load_recipe
from taichu.plan import workload_of

ROOT = Path(__file__).parents[3]
BYTES = {
    ir.DT_FLOAT32: 4,
    ir.DT_INT32: 4,
    ir.DT_INT64: 8,
    ir.DT_BFLOAT16: 2,
    ir.DT_FLOAT16: 2,
    ir.DT_BOOL: 1,
}
# operators whose output is their input's memory, or none
VIEWS = {"Reshape", "Depend", "Load", "NarrowView", "TransposeView", "ExpandDimsView"}
VIEWS |= {"Transpose", "ExpandDims"}
BOOKKEEPING = {"UpdateState", "MakeTuple"}
PRODUCTS = {"MatMul", "MatMulExt", "BatchMatMul", "BatchMatMulExt"}
COLLECTIVES = {"AllReduce", "AllGather", "ReduceScatter", "AllToAll", "Send"}


class Compiled:
    """A compiled step; ``folder`` is where MindSpore left its graphs and its account."""

    def __init__(self, folder: Path):
        self.folder, self.graphs = folder, []
        for path in sorted(folder.rglob("ms_output_vm_build_*.pb")):
            self.graphs.append(ir.ModelProto.FromString(path.read_bytes()).graph)
        self.graph = max(self.graphs, key=lambda graph: len(graph.node))
        self.nodes = {node.name: node for node in self.graph.node}
        self.types = {p.name: p.type for p in self.graph.parameters}
        self.types |= {node.name: node.output_type for node in self.graph.node}
        self.backward = set()
        for node in self.graph.node:
            feeds = node.op_type != "UpdateState" and any(
                edge.name in self.backward for edge in node.input
            )
            if node.full_name.startswith("Gradients/") or feeds:
                self.backward.add(node.name)

    @functools.cached_property
    def kept_bytes(self) -> int:
        """Of all tensors that forward's nodes make and backward's nodes use."""
        kept = {}
        for node in self.graph.node:
            if node.name in self.backward and node.op_type not in BOOKKEEPING:
                for edge in node.input:
                    kept |= self._memory(edge.name)
        return sum(kept.values())

    def _memory(self, name: str) -> dict:
        """What of forward's memory a name stands for: (node, output) -> bytes."""
        node = self.nodes.get(name)
        if node is None or node.output_type.data_type not in (ir.DT_TENSOR, ir.DT_TUPLE):
            return {}
        if node.op_type in VIEWS:
            return self._memory(node.input[0].name)
        if node.op_type == "TupleGetItem":
            made, output = self.nodes.get(node.input[0].name), node.input[1].name
        else:
            made, output = node, ""
        if made is None or made.name in self.backward:
            return {}
        if node.output_type.data_type != ir.DT_TENSOR:
            return {}
        return {(made.name, output): size_of(node.output_type)}

    def product_operations(self, backward: bool) -> int:
        """Of all matrix products but those inside attention's kernel."""
        total = 0
        for node in self.graph.node:
            if node.op_type in PRODUCTS and (node.name in self.backward) == backward:
                out, (left, right) = math.prod(dimensions(node.output_type)), node.input[:2]
                columns = dimensions(node.output_type)[-1]
                if right.name in self.types:
                    batch = math.prod(dimensions(node.output_type)[:-2])
                    inner = math.prod(dimensions(self.types[right.name])) // batch // columns
                else:
                    inner = math.prod(dimensions(self.types[left.name])) // (out // columns)
                total += 2 * out * inner
        return total

    def collectives(self) -> Counter:
        """(kind, name of the group, bytes of the larger of input and output) -> how many."""
        found: Counter = Counter()
        for graph in self.graphs:
            types = {node.name: node.output_type for node in graph.node}
            types |= {p.name: p.type for p in graph.parameters}
            for node in graph.node:
                if node.op_type in COLLECTIVES:
                    (group,) = (a.value.str_val for a in node.attribute if a.name == "group")
                    size = max(size_of(node.output_type), size_of(types[node.input[0].name]))
                    kind = node.op_type.replace("AllToAll", "AlltoAll")
                    found[kind, group, size] += 1
        return found

    @functools.cached_property
    def peak_bytes(self) -> int:
        """The most that MindSpore's allocator held at a time, by its own account."""
        changes = []
        (path,) = self.folder.rglob("memory_block.csv")
        with path.open() as file:
            for row in csv.DictReader(file):
                size = int(row["size"])
                changes.append((int(row["start_time_stamp"]), size))
                changes.append((int(row["end_time_stamp"]), -size))
        held = most = 0
        for _, change in sorted(changes):
            held += change
            most = max(most, held)
        return most


def dimensions(kind) -> list[int]:
    return [dim.size for dim in kind.tensor_type.shape.dim]


def size_of(kind) -> int:
    return math.prod(dimensions(kind)) * BYTES[kind.tensor_type.elem_type]


@pytest.fixture(scope="session")
def compile_step(tmp_path_factory):
    """Gives (the workload of pretrain with these changes, its step compiled for a rank)."""
    if missing_tool():
        pytest.skip(f"{missing_tool()} is not there")

    def compile_step(*changes: str, rank: int = 0, ranks: int = 1):
        folder = tmp_path_factory.mktemp("compiled")
        recipe = str(ROOT / "recipes" / "pretrain.yaml")
        variables = {
            **environment(build_standins(), rank=rank, ranks=ranks),
            "PYTHONPATH": environment(build_standins())["PYTHONPATH"] + f":{ROOT}",
            "MS_DEV_SAVE_GRAPHS": "2",
            "MS_DEV_SAVE_GRAPHS_PATH": str(folder),
            "MS_DEV_DUMP_IR_PASSES": "graph_build",
            "MS_ALLOC_CONF": "memory_tracker:True",
            "GLOG_v": "3",
        }
        program = Path(__file__).parent / "compile_on_ranks.py"
        done = subprocess.run(
            [sys.executable, str(program), recipe, *changes],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        _, config = load_recipe(recipe, list(changes))
        return workload_of(config, find_device_type("910B2")), Compiled(folder)

    return compile_step


@pytest.fixture(scope="session")
def read_workload():
    """Gives the workload of pretrain with some changes."""

    def read_workload(*changes: str, device: str = "910B2"):
        _, config = load_recipe(str(ROOT / "recipes" / "pretrain.yaml"), list(changes))
        return workload_of(config, find_device_type(device))

    return read_workload
