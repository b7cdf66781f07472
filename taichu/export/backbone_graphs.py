"""The backbone's three graphs: embeddings of packed rows, conditions read, one token more a row.

Names of dimensions: B rows, L tokens, N = B * L, D width, K head size, V vocabulary, P patch size,
T tokens of a grid, C width of an embedding.
"""

import numpy as np

from taichu.config import ModelConfig
from taichu.export.graph import Graph, Weights
from taichu.export.network import Attention, Blocks, CachedAttention
from taichu.export.tower_graph import TowerGraph
from taichu.model.rotary_frequencies import rotary_frequencies
from taichu.model.spelling import spelled_table

HIDDEN = -1e9  # added to the score of a token that is not seen


class BackboneGraphs:
    """Makes the graphs of a model.

    Args:
        config: sizes.
        tensors: of model.safetensors, by name.
        grids: (tokens, patch size) of each grid modality, in the config's order.
        vocabulary_size: V.
        weights: where the model's arrays are kept.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: dict[str, np.ndarray],
        grids: dict[str, tuple[int, int]],
        vocabulary_size: int,
        weights: Weights,
    ):
        self.config, self.tensors, self.grids = config, tensors, grids
        self.weights, self.size = weights, vocabulary_size
        levels = [config.codecs[name].levels for name in config.modalities]
        self.table = spelled_table(tensors, "table", levels, vocabulary_size)
        self.head = self.table
        if not config.tied:
            self.head = spelled_table(tensors, "head", levels, vocabulary_size)

    def embed(self) -> Graph:
        """Packed rows -> embeddings (count, C) of unit length."""
        graph = Graph("embed", self.weights)
        x, blocks, _ = self._read_rows(graph)
        pool = graph.shape(graph.input("pool", ["B", "L"], np.int32), -1, 1)
        count = graph.input("count", [1], np.int64)
        op, constant = graph.op, graph.constant
        slots = op("Add", count, constant([1], np.int64))
        pool = op("Cast", pool, to=7)  # int64
        zeros = op(
            "ConstantOfShape", op("Concat", slots, constant([self.config.width], np.int64), axis=0)
        )
        sums = op("ScatterND", zeros, pool, blocks.rms_norm(x, "norm"), reduction="add")
        none = op("ConstantOfShape", op("Concat", slots, constant([1], np.int64), axis=0))
        ones = op("Expand", constant([[1.0]]), op("Shape", pool))
        counts = op("ScatterND", none, pool, ones, reduction="add")
        mean = op("Div", sums, op("Max", counts, constant(1.0)))
        # number 0 is what is not pooled
        mean = op("Slice", mean, constant([1], np.int64), slots, constant([0], np.int64))
        out = blocks.linear(mean, "projection")
        squares = op("ReduceSum", op("Mul", out, out), constant([1], np.int64), keepdims=1)
        size = op("Sqrt", op("Add", squares, constant(1e-12)))
        graph.output(op("Div", out, size), "embeddings", ["count", self.config.embedding])
        return graph

    def read(self) -> Graph:
        """Rows of one segment each -> keys and values of each block (B, G, L, K)."""
        graph = Graph("read", self.weights)
        _, _, attention = self._read_rows(graph)
        config = self.config
        shape = ["B", config.key_value_heads, "L", config.head_size]
        for n in range(config.depth):
            for part, made in zip(("keys", "values"), attention.kept[2 * n :]):
                graph.output(made, f"{part}.{n}", shape)
        return graph

    def step(self) -> Graph:
        """The newest token of each row -> logits (rows, V) of the next one."""
        graph, config = Graph("step", self.weights), self.config
        ids = graph.input("ids", ["rows"], np.int32)
        coords = graph.input("coords", ["rows", 3], np.int32)
        lengths = graph.input("lengths", ["rows"], np.int32)
        longest = graph.input("longest", [1], np.int32)
        x = graph.op("Gather", self._table(graph), ids)
        attend = CachedAttention(graph, config, lengths, longest)
        blocks = Blocks(graph, self.tensors, config, *self._angles(graph, coords))
        x = blocks.rms_norm(blocks.run(x, "blocks", config.depth, attend), "norm")
        logits = graph.op("MatMul", x, graph.weight("head^T", lambda: self.head.T))
        graph.output(logits, "logits", ["rows", self.size])
        return graph

    def _read_rows(self, graph: Graph):
        """(what the last block returns (N, D), the blocks, their attention)."""
        op, constant, config = graph.op, graph.constant, self.config
        names = ("ids", "source", "segment", "span")
        ids, source, segment, span = (graph.input(n, ["B", "L"], np.int32) for n in names)
        coords = graph.input("coords", ["B", "L", 3], np.int32)
        rows = [op("Expand", constant([[0.0]]), constant([1, config.width], np.int64))]
        for index, (name, (T, P)) in enumerate(self.grids.items()):
            patches = graph.input(f"patches.{name}", [f"{name}_patches", P])
            rows.append(self._embed(graph, name, patches, index, T))
        source = graph.shape(source, -1)
        of_ids = op("Gather", self._table(graph), graph.shape(ids, -1))
        of_patches = op("Gather", op("Concat", *rows, axis=0), source)
        is_id = op("Equal", graph.shape(source, -1, 1), constant(0, np.int32))
        x = op("Where", is_id, of_ids, of_patches)
        attention = Attention(graph, config, seen_bias(graph, segment, span), op("Shape", ids))
        blocks = Blocks(graph, self.tensors, config, *self._angles(graph, coords))
        return blocks.run(x, "blocks", config.depth, attention), blocks, attention

    def _embed(self, graph: Graph, name: str, patches: str, index: int, tokens: int) -> str:
        """Patches (n, P), grid after grid -> (n, D)."""
        tower = self.config.towers.get(name)
        if tower is None:
            return embed_patches(graph, self.tensors, patches, index, tokens)
        return TowerGraph(graph, self.tensors, f"patch_embedders.{index}", tower).embed(
            patches, tokens
        )

    def _table(self, graph: Graph) -> str:
        return graph.weight("table", lambda: self.table * self.config.id_scale)

    def _angles(self, graph: Graph, coords: str) -> tuple[str, str]:
        coords = graph.op("Cast", graph.shape(coords, -1, 3), to=1)  # float32
        angle = graph.op("MatMul", coords, graph.constant(rotary_frequencies(self.config)))
        angle = graph.shape(angle, -1, 1, self.config.head_size // 2)
        turns = graph.op("Cos", angle), graph.op("Sin", angle)
        if self.config.rotary_size == 1:
            return turns
        size = graph.constant(self.config.rotary_size)
        return graph.op("Mul", turns[0], size), graph.op("Mul", turns[1], size)


def embed_patches(graph: Graph, tensors: dict, patches: str, index: int, tokens: int) -> str:
    """Patches (n, P), grid after grid -> (n, D); their scale goes into the map, in float64."""
    name, scale = f"patch_embedders.{index}", f"patch_scales.{index}"
    wide = {
        key: tensors[key].astype(np.float64) for key in tensors if key.startswith((name, scale))
    }
    weight = wide[f"{name}.linear.weight"] / wide[f"{scale}.deviation"]
    offset_TD = wide[f"{name}.place"] + wide[f"{name}.linear.bias"]
    offset_TD = offset_TD - wide[f"{scale}.mean"] @ weight.T
    made = graph.op("MatMul", patches, graph.weight(f"{name}.weight^T", lambda: weight.T))
    D = weight.shape[0]
    offset = graph.weight(f"{name}.offset", lambda: offset_TD)
    made = graph.op("Add", graph.shape(made, -1, tokens, D), offset)
    return graph.shape(made, -1, D)


def seen_bias(graph: Graph, segment: str, span: str) -> str:
    """(B, 1, L, L): 0 where a token (third axis) sees another (last): an earlier one of its own
    segment, or any of its own span."""
    op, constant = graph.op, graph.constant
    length = op("Slice", op("Shape", segment), constant([1], np.int64), constant([2], np.int64))
    zero, one = constant(0, np.int64), constant(1, np.int64)
    place = op("Range", zero, op("Squeeze", length), one)
    earlier = op("LessOrEqual", graph.shape(place, 1, 1, 1, -1), graph.shape(place, 1, 1, -1, 1))

    def same(plane: str) -> str:
        left = op("Unsqueeze", plane, constant([1, 3], np.int64))
        return op("Equal", left, op("Unsqueeze", plane, constant([1, 2], np.int64)))

    in_span = op(
        "Greater", op("Unsqueeze", span, constant([1, 3], np.int64)), constant(0, np.int32)
    )
    together = op("Or", earlier, op("And", same(span), in_span))
    seen = op("And", same(segment), together)
    return op("Where", seen, constant(0.0), constant(HIDDEN))
