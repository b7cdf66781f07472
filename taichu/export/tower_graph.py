"""A tower and its projector as ONNX operators: what `taichu.model.towers` computes.

Names of dimensions: n grids of L tokens inside, N = n * L, W width, H heads, K head size.
"""

import numpy as np

from taichu.config import TowerConfig
from taichu.export.graph import Graph
from taichu.export.network import linear


class TowerGraph:
    """Adds a tower to a graph.

    Args:
        graph: where operators are added.
        tensors: of the model and its towers, by name.
        name: of the embedder that holds the tower and the projector.
        config: of the tower.
    """

    def __init__(self, graph: Graph, tensors: dict, name: str, config: TowerConfig):
        self.graph, self.config, self.name = graph, config, name
        self.tensors = {key: value for key, value in tensors.items() if key.startswith(name)}
        for n in range(config.depth):  # Whisper's keys have none
            bias = np.zeros(config.width, np.float32)
            self.tensors.setdefault(f"{name}.tower.encoder.layers.{n}.attention.key.bias", bias)

    def embed(self, patches: str, tokens: int) -> str:
        """Patches (n * tokens, P) -> (n * tokens, D)."""
        op, constant, config = self.graph.op, self.graph.constant, self.config
        whisper = config.kind == "whisper"
        bands = config.channels
        x = self.graph.shape(patches, -1, bands)
        x = op("Div", op("Sub", x, constant(config.mean)), constant(config.deviation))
        x = self._read_sound(x) if whisper else self._read_image(x, tokens)
        x = self._project(self._run(x), tokens)
        x = self._linear(x, f"{self.name}.projector.first")
        if config.projector == "mlp":
            x = self._linear(self._gelu(x), f"{self.name}.projector.second")
        return x

    def _read_image(self, x: str, tokens: int) -> str:
        """(n, L, W), the class token first where there is one."""
        op, W = self.graph.op, self.config.width
        values = self.tensors[f"{self.name}.tower.patches.weight"].shape[1]
        x = self._linear(self.graph.shape(x, -1, values), f"{self.name}.tower.patches")
        x = self.graph.shape(x, -1, tokens, W)
        if self.config.kind == "clip":
            count = op("Slice", op("Shape", x), *(self._numbers(k) for k in (0, 1)))
            shape = op("Concat", count, self._numbers(1, W), axis=0)
            x = op("Concat", op("Expand", self._weight("start"), shape), x, axis=1)
        x = op("Add", x, self._weight("place"))
        return self._norm(x, "first_norm") if self.config.kind == "clip" else x

    def _read_sound(self, x: str) -> str:
        """(n, L, W), of mel frames (n * 2 L, bands)."""
        op, bands = self.graph.op, self.config.channels
        length = self.tensors[f"{self.name}.tower.place"].shape[0]
        x = op("Transpose", self.graph.shape(x, -1, 2 * length, bands), perm=[0, 2, 1])
        for part, stride in (("convolution_1", 1), ("convolution_2", 2)):
            key = f"{self.name}.tower.{part}"
            weight = self.tensors[f"{key}.weight"].reshape(self.config.width, 3, -1)
            weight = self.graph.weight(f"{key}.weight^T", lambda w=weight: w.transpose(0, 2, 1))
            bias = self._weight(f"{part}.bias")
            x = op("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride])
            x = self._gelu(x)
        return op("Add", op("Transpose", x, perm=[0, 2, 1]), self._weight("place"))

    def _run(self, x: str) -> str:
        """All layers, and the last norm where there is one; x (n, L, W)."""
        op = self.graph.op
        for n in range(self.config.depth):
            layer = f"encoder.layers.{n}"
            normed = self._norm(x, f"{layer}.attention_norm")
            x = op("Add", x, self._attend(normed, f"{self.name}.tower.{layer}.attention"))
            normed = self._norm(x, f"{layer}.feed_forward_norm")
            hidden = self._activate(self._linear(normed, f"{self.name}.tower.{layer}.up"))
            x = op("Add", x, self._linear(hidden, f"{self.name}.tower.{layer}.down"))
        return self._norm(x, "encoder.norm") if self.config.last_norm else x

    def _attend(self, x: str, name: str) -> str:
        op, graph, config = self.graph.op, self.graph, self.config
        W, H = config.width, config.heads
        every = self._linear(x, *(f"{name}.{part}" for part in ("query", "key", "value")))
        parts = op("Split", every, self._numbers(W, W, W), outputs=3, axis=2)
        q, k, v = (graph.shape(part, 0, 0, H, W // H) for part in parts)
        q, v = (op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = op("MatMul", q, op("Transpose", k, perm=[0, 2, 3, 1]))
        scores = op("Mul", scores, graph.constant((W // H) ** -0.5))
        seen = op("MatMul", op("Softmax", scores, axis=-1), v)
        seen = graph.shape(op("Transpose", seen, perm=[0, 2, 1, 3]), 0, 0, W)
        return self._linear(seen, f"{name}.output")

    def _project(self, x: str, tokens: int) -> str:
        """(n, L, W) -> (n * tokens, W): without a class token, or averaged."""
        op, W = self.graph.op, self.config.width
        length = self.tensors[f"{self.name}.tower.place"].shape[0]
        if self.config.kind == "clip":
            ends = (self._numbers(k) for k in (1, length, 1))
            x = op("Slice", x, *ends)
        elif length > tokens:
            x = self.graph.shape(x, -1, length // tokens, W)
            x = op("ReduceMean", x, axes=[1], keepdims=0)
        return self.graph.shape(x, -1, W)

    def _activate(self, x: str) -> str:
        op, constant = self.graph.op, self.graph.constant
        if self.config.activation == "gelu":
            return self._gelu(x)
        if self.config.activation == "quick_gelu":
            return op("Mul", x, op("Sigmoid", op("Mul", x, constant(1.702))))
        cube = op("Mul", op("Mul", op("Mul", x, x), x), constant(0.044715))
        steep = op("Mul", op("Add", x, cube), constant(1.5957691216057308))
        return op("Mul", x, op("Sigmoid", steep))

    def _gelu(self, x: str) -> str:
        op, constant = self.graph.op, self.graph.constant
        share = op("Add", op("Erf", op("Div", x, constant(2**0.5))), constant(1.0))
        return op("Mul", op("Mul", x, share), constant(0.5))

    def _norm(self, x: str, part: str) -> str:
        scale, bias = self._weight(f"{part}.weight"), self._weight(f"{part}.bias")
        epsilon = self.config.norm_epsilon
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def _linear(self, x: str, *names: str) -> str:
        return linear(self.graph, self.tensors, x, *names)

    def _weight(self, part: str) -> str:
        key = f"{self.name}.tower.{part}"
        return self.graph.weight(key, lambda: self.tensors[key])

    def _numbers(self, *values: int) -> str:
        return self.graph.constant(values, np.int64)
