"""A builder of ONNX graphs whose weights lie in one file that all graphs of a folder share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, MICROSOFT = 17, "com.microsoft"
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
TYPES |= {np.dtype(np.int64): TensorProto.INT64}


class Weights:
    """Named arrays of all graphs, float32, to be written as one safetensors file."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def get(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a name, which is made when a graph first asks for it."""
        if name not in self.arrays:
            self.arrays[name] = np.ascontiguousarray(make(), np.float32)
        return self.arrays[name]


class Graph:
    """An ONNX graph that is put together operator by operator; values are named by strings.

    Args:
        name: of the graph.
        weights: where the model's arrays are kept.
    """

    def __init__(self, name: str, weights: Weights):
        self.name, self.weights = name, weights
        self.nodes, self.inputs, self.outputs = [], [], []
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the weights that it uses
        self.constants: dict[str, np.ndarray] = {}
        self.known: dict[tuple, str] = {}  # names of constants by what they hold

    def input(self, name: str, shape: list, kind=np.float32) -> str:
        """An input; a dimension is a number, or a word where it may be any."""
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[np.dtype(kind)], shape))
        return name

    def output(self, value: str, name: str, shape: list, kind=np.float32):
        """Make a value an output of this name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[np.dtype(kind)], shape))

    def weight(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """A named array of the model, which all graphs share."""
        self.shapes[name] = self.weights.get(name, make).shape
        return name

    def constant(self, value, kind=np.float32) -> str:
        """An array of numbers that is in the graph itself; equal ones are one."""
        array = np.asarray(value, kind)
        key = array.dtype.str, array.shape, array.tobytes()
        name = self.known.setdefault(key, f"constant.{len(self.known)}")
        self.constants[name] = array
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes):
        """Add an operator; returns the name of its output, or a list of several."""
        names = [f"{kind}.{len(self.nodes)}.{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def shape(self, value: str, *dimensions: int) -> str:
        """A value with other dimensions; 0 keeps one, -1 is what is left."""
        return self.op("Reshape", value, self.constant(dimensions, np.int64))

    def save(self, path: Path, file: str, places: dict[str, tuple[int, int]]):
        """Write the graph.

        Args:
            path: of the graph.
            file: name of the weights' file, beside it.
            places: (offset, bytes) of each array in that file.
        """
        initializers = [numpy_helper.from_array(array, n) for n, array in self.constants.items()]
        for name, shape in self.shapes.items():
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            offset, length = places[name]
            for key, value in (("location", file), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            initializers.append(tensor)
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="taichu")
        model.ir_version = 9  # of opset 17's time: older readers open it, too
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path))
