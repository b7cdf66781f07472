"""The model's parts as ONNX operators; each computes what its Cell in `taichu` does, in float32.

Names of dimensions: N tokens, D width, H heads, G key/value heads, K head size, F hidden width,
V vocabulary, P patch size, T tokens of a grid, E experts.
"""

import numpy as np

from taichu.config import ModelConfig
from taichu.export.graph import MICROSOFT, Graph


def linear(graph: Graph, tensors: dict, x: str, *names: str) -> str:
    """x W^T (+ b), of several maps side by side."""

    def join(part: str) -> np.ndarray:
        return np.concatenate([tensors[f"{name}.{part}"] for name in names])

    joined = "|".join(names)
    out = graph.op("MatMul", x, graph.weight(f"{joined}.weight^T", lambda: join("weight").T))
    if f"{names[0]}.bias" not in tensors:
        return out
    return graph.op("Add", out, graph.weight(f"{joined}.bias", lambda: join("bias")))


class Blocks:
    """Blocks of a backbone or a codec in a graph.

    Args:
        graph: where operators are added.
        tensors: of the model, by name.
        config: sizes of the blocks.
        cos, sin: (N, 1, K / 2) values of the graph: each token's angles.
    """

    def __init__(self, graph: Graph, tensors: dict, config: ModelConfig, cos: str, sin: str):
        self.graph, self.tensors, self.config = graph, tensors, config
        self.cos, self.sin = cos, sin

    def linear(self, x: str, *names: str) -> str:
        """Of several maps, side by side."""
        return linear(self.graph, self.tensors, x, *names)

    def rms_norm(self, x: str, name: str) -> str:
        """x / sqrt(mean x^2 + epsilon) * weight, in the operators that runtimes fuse."""
        op, constant = self.graph.op, self.graph.constant
        squares = op("ReduceMean", op("Pow", x, constant(2.0)), axes=[-1], keepdims=1)
        size = op("Sqrt", op("Add", squares, constant(self.config.norm_epsilon)))
        weight = self.graph.weight(f"{name}.weight", lambda: self.tensors[f"{name}.weight"])
        return op("Mul", op("Div", x, size), weight)

    def turn(self, x: str, heads: int) -> str:
        """x (N, heads * K) as (N, heads, K), each pair (x[k], x[k + K/2]) turned by its angle."""
        op, half = self.graph.op, self.config.head_size // 2
        x = self.graph.shape(x, -1, heads, self.config.head_size)
        first, second = op(
            "Split", x, self.graph.constant([half, half], np.int64), outputs=2, axis=2
        )
        turned = (
            op("Sub", op("Mul", first, self.cos), op("Mul", second, self.sin)),
            op("Add", op("Mul", second, self.cos), op("Mul", first, self.sin)),
        )
        return op("Concat", *turned, axis=2)

    def project(self, x: str, name: str) -> tuple[str, str, str]:
        """Queries (N, H, K), keys and values (N, G, K), turned where they are."""
        config, graph = self.config, self.graph
        H, G, K = config.heads, config.key_value_heads, config.head_size
        every = self.linear(x, *(f"{name}.{part}" for part in ("query", "key", "value")))
        sizes = graph.constant([H * K, G * K, G * K], np.int64)
        query, key, value = graph.op("Split", every, sizes, outputs=3, axis=1)
        if config.query_key_norm:
            query = self.rms_norm(graph.shape(query, -1, H, K), f"{name}.query_norm")
            key = self.rms_norm(graph.shape(key, -1, G, K), f"{name}.key_norm")
        return self.turn(query, H), self.turn(key, G), graph.shape(value, -1, G, K)

    def feed(self, x: str, name: str) -> str:
        """The feed-forward layer."""
        return self.mix_experts(x, name) if self.config.experts else self.swiglu(x, name)

    def mix_experts(self, x: str, name: str) -> str:
        """`taichu.model.mixture_of_experts` with every expert on every token, and the weights of
        those that a token does not choose 0: nothing is dropped."""
        op, weight, tensors = self.graph.op, self.graph.weight, self.tensors
        score = op("Sigmoid", self.linear(x, f"{name}.router"))
        balance = f"{name}.router.balance"
        asked = op("Add", score, weight(balance, lambda: tensors[balance]))
        count = self.graph.constant([self.config.active_experts], np.int64)
        _, chosen = op("TopK", asked, count, outputs=2, axis=-1)
        picked = op("GatherElements", score, chosen, axis=1)
        total = op("ReduceSum", picked, self.graph.constant([1], np.int64), keepdims=1)
        zeros = op("Mul", score, self.graph.constant(0.0))
        shares_NE = op("ScatterElements", zeros, chosen, op("Div", picked, total), axis=1)

        def matrices(part: str) -> str:  # (E, inputs, outputs)
            key = f"{name}.layers.{part}"
            return weight(f"{key}^T", lambda: tensors[key].transpose(0, 2, 1))

        x = op("Unsqueeze", x, self.graph.constant([0], np.int64))
        gate, up = op("MatMul", x, matrices("gate")), op("MatMul", x, matrices("up"))
        hidden = op("Mul", op("Mul", gate, op("Sigmoid", gate)), up)
        made_END = op("MatMul", hidden, matrices("down"))
        shares_EN1 = op(
            "Unsqueeze", op("Transpose", shares_NE, perm=[1, 0]), self.graph.constant([2], np.int64)
        )
        kept = op("Mul", made_END, shares_EN1)
        return op("ReduceSum", kept, self.graph.constant([0], np.int64), keepdims=0)

    def swiglu(self, x: str, name: str) -> str:
        """The SwiGLU layer."""
        op, F = self.graph.op, self.config.hidden
        both = self.linear(x, f"{name}.gate", f"{name}.up")
        gate, up = op("Split", both, self.graph.constant([F, F], np.int64), outputs=2, axis=1)
        return self.linear(op("Mul", op("Mul", gate, op("Sigmoid", gate)), up), f"{name}.down")

    def run(self, x: str, prefix: str, depth: int, attend) -> str:
        """All blocks.

        Args:
            x: (N, D). prefix: of the blocks' names. depth: how many.
            attend: (block's number, queries, keys, values) -> what the heads found, (N, H * K).
        """
        op = self.graph.op
        for n in range(depth):
            name = f"{prefix}.{n}"
            normed = self.rms_norm(x, f"{name}.attention_norm")
            seen = attend(n, *self.project(normed, f"{name}.attention"))
            x = op("Add", x, self.linear(seen, f"{name}.attention.output"))
            normed = self.rms_norm(x, f"{name}.feed_forward_norm")
            x = op("Add", x, self.feed(normed, f"{name}.feed_forward"))
        return x


class Attention:
    """Attention of whole rows, each token to those that a mask lets it see.

    Args:
        graph: where operators are added.
        config: sizes.
        bias: (B, 1, L, L) value: 0 where a token is seen, a large negative number elsewhere.
        rows: (2,) int64 value: B, L.
    """

    def __init__(self, graph: Graph, config: ModelConfig, bias: str, rows: str):
        self.graph, self.config, self.bias, self.rows = graph, config, bias, rows
        self.kept: list[str] = []  # keys and values (B, G, L, K) of each block

    def __call__(self, number: int, query: str, key: str, value: str) -> str:
        op, config = self.graph.op, self.config
        H, G, K = config.heads, config.key_value_heads, config.head_size
        query, key, value = self.rows_of(query, H), self.rows_of(key, G), self.rows_of(value, G)
        self.kept += [key, value]
        key, value = self.widen(key), self.widen(value)
        scores = op("MatMul", query, op("Transpose", key, perm=[0, 1, 3, 2]))
        scores = op("Add", op("Mul", scores, self.graph.constant(K**-0.5)), self.bias)
        seen = op("MatMul", op("Softmax", scores, axis=-1), value)
        return self.graph.shape(op("Transpose", seen, perm=[0, 2, 1, 3]), -1, H * K)

    def rows_of(self, x: str, heads: int) -> str:
        """(N, heads, K) -> (B, heads, L, K)."""
        tail = self.graph.constant([heads, self.config.head_size], np.int64)
        shape = self.graph.op("Concat", self.rows, tail, axis=0)
        return self.graph.op("Transpose", self.graph.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def widen(self, x: str) -> str:
        """Each of G heads once for each of the H / G that it serves."""
        H, G = self.config.heads, self.config.key_value_heads
        if H == G:
            return x
        number = np.repeat(np.arange(G), H // G)
        return self.graph.op("Gather", x, self.graph.constant(number, np.int64), axis=1)


class CachedAttention:
    """Attention of one new token a row to those that a cache holds, which is written in place.

    By ONNX Runtime's GroupQueryAttention: where an input and an output are bound to one memory, it
    appends to it, at a place of each row's own.

    Args:
        graph: where operators are added.
        config: sizes.
        lengths: (R,) int32 value: tokens that each row's cache holds.
        longest: (1,) int32 value: the largest of them and one.
    """

    def __init__(self, graph: Graph, config: ModelConfig, lengths: str, longest: str):
        self.graph, self.config, self.lengths, self.longest = graph, config, lengths, longest

    def __call__(self, number: int, query: str, key: str, value: str) -> str:
        graph, config = self.graph, self.config
        H, G, K = config.heads, config.key_value_heads, config.head_size
        shape = ["rows", G, "room", K]
        caches = [graph.input(f"{part}.{number}", shape) for part in ("keys", "values")]
        new = [graph.shape(x, -1, 1, n * K) for x, n in ((query, H), (key, G), (value, G))]
        outputs = graph.op(
            "GroupQueryAttention",
            *new,
            *caches,
            self.lengths,
            self.longest,
            outputs=3,
            domain=MICROSOFT,
            num_heads=H,
            kv_num_heads=G,
        )
        for part, made in zip(("keys", "values"), outputs[1:]):
            graph.output(made, f"new.{part}.{number}", shape)
        return graph.shape(outputs[0], -1, H * K)
