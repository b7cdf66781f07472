"""A codec's two graphs: patches to codes, and codes to patches.

Names of dimensions: S grids, T tokens of a grid, N = S * T, P patch size, W width, Q digits.
"""

import numpy as np

from modality_adapters.grid import GridGeometry
from taichu.config import CodecConfig
from taichu.export.graph import Graph, Weights
from taichu.export.network import Attention, Blocks, linear
from taichu.model.rotary_frequencies import rotary_frequencies


class CodecGraphs:
    """Makes the graphs of one modality's codec.

    Args:
        name: of the modality.
        config: of the codec.
        geometry: of its grid.
        tensors: of codecs/<name>.safetensors.
        weights: where the model's arrays are kept.
    """

    def __init__(
        self, name: str, config: CodecConfig, geometry: GridGeometry, tensors, weights: Weights
    ):
        self.name, self.config, self.geometry, self.weights = name, config, geometry, weights
        self.tensors = {key: value.astype(np.float64) for key, value in tensors.items()}
        # as the weights of all graphs are told apart
        self.named = {f"{name}.{key}": value for key, value in self.tensors.items()}
        self.blocks = config.blocks

    def encode(self) -> Graph:
        """Patches (S, T, P) -> codes (S, T) int32."""
        graph, T, P = self._graph("encode"), self.geometry.tokens, self.geometry.patch_size
        op, constant = graph.op, graph.constant
        patches = graph.input("patches", ["S", T, P])
        linear, scale = "patch_in.linear", self.tensors["scale.deviation"]
        weight = self.tensors[f"{linear}.weight"] / scale
        offset = self.tensors["patch_in.place"] + self.tensors[f"{linear}.bias"]
        offset = offset - self.tensors["scale.mean"] @ weight.T
        x = op("MatMul", patches, self._weight(graph, "patch_in^T", weight.T))
        x = op("Add", x, self._weight(graph, "patch_in.offset", offset))
        digits = self._linear(graph, self._run(graph, x, "encoder"), "digits_in")
        levels = np.array(self.config.levels, np.float64)
        half = (levels - 1) * (1 + 1e-3) / 2
        shift = np.where(levels % 2 == 0, 0.5, 0.0)
        bounded = op("Tanh", op("Add", digits, constant(np.arctanh(shift / half))))
        bounded = op("Sub", op("Mul", bounded, constant(half)), constant(shift))
        steps = op("Add", op("Round", bounded), constant(levels // 2))
        basis = np.cumprod([1, *self.config.levels[:-1]])
        codes = op(
            "ReduceSum", op("Mul", steps, constant(basis, np.float32)), constant([1], np.int64)
        )
        codes = op("Cast", graph.shape(codes, -1, T), to=6)  # int32
        graph.output(codes, "codes", ["S", T], np.int32)
        return graph

    def decode(self) -> Graph:
        """Codes (S, T) int32 -> patches (S, T, P)."""
        graph, T, P = self._graph("decode"), self.geometry.tokens, self.geometry.patch_size
        op, constant = graph.op, graph.constant
        codes = graph.shape(graph.input("codes", ["S", T], np.int32), -1, 1)
        basis = np.cumprod([1, *self.config.levels[:-1]]).astype(np.int32)
        steps = op(
            "Mod",
            op("Div", codes, constant(basis, np.int32)),
            constant(self.config.levels, np.int32),
        )
        middle = constant(np.array(self.config.levels) // 2, np.float32)
        digits = op("Div", op("Sub", op("Cast", steps, to=1), middle), middle)
        x = graph.shape(self._linear(graph, digits, "digits_out.linear"), -1, T, self.config.width)
        x = op("Add", x, self._weight(graph, "digits_out.place", self.tensors["digits_out.place"]))
        patches = self._linear(graph, self._run(graph, x, "decoder"), "patch_out")
        patches = op(
            "Mul", graph.shape(patches, -1, T, P), constant(self.tensors["scale.deviation"])
        )
        patches = op("Add", patches, self._weight(graph, "scale.mean", self.tensors["scale.mean"]))
        graph.output(patches, "patches", ["S", T, P])
        return graph

    def _graph(self, part: str) -> Graph:
        return Graph(f"{part}.{self.name}", self.weights)

    def _weight(self, graph: Graph, name: str, array: np.ndarray) -> str:
        return graph.weight(f"{self.name}.{name}", lambda: array)

    def _linear(self, graph: Graph, x: str, name: str) -> str:
        return linear(graph, self.named, x, f"{self.name}.{name}")

    def _run(self, graph: Graph, x: str, part: str) -> str:
        """Blocks over grids (S, T, W), all of whose tokens see each other, and a norm: (N, W)."""
        op, constant, W = graph.op, graph.constant, self.config.width
        rows = op("Slice", op("Shape", x), constant([0], np.int64), constant([2], np.int64))
        angle = self.geometry.coordinates() @ rotary_frequencies(self.blocks).astype(np.float64)
        turns = []
        for turn in (np.cos(angle), np.sin(angle)):  # of each grid alike
            turn = constant(turn[:, None].astype(np.float32))
            count = op("Slice", rows, constant([0], np.int64), constant([1], np.int64))
            repeats = op("Concat", count, constant([1, 1], np.int64), axis=0)
            turns.append(op("Tile", turn, repeats))
        blocks = Blocks(graph, self.named, self.blocks, *turns)
        attention = Attention(graph, self.blocks, constant(0.0), rows)
        x = graph.shape(x, -1, W)
        x = blocks.run(x, f"{self.name}.{part}", self.config.depth, attention)
        return blocks.rms_norm(x, f"{self.name}.{part}_norm")
