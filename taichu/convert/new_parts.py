"""What a language model lacks and a model of modalities has, as it starts: drawn as the cells of
`taichu.model` draw it, and in a published model as small as its own table is.

Names of dimensions: D width, P patch size, T tokens of a grid, K head size, F hidden width.
"""

import math

import numpy as np

from modality_adapters.grid import GridGeometry
from taichu.config import CodecConfig, ModelConfig, TowerConfig


class NewParts:
    """Draws tensors by name.

    Args:
        seed: of all that is drawn, in the order in which it is asked for.
    """

    def __init__(self, seed: int = 0):
        self.random = np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return self.random.standard_normal(shape, np.float32) * np.float32(deviation)

    def backbone(
        self,
        config: ModelConfig,
        geometries: dict[str, GridGeometry],
        deviations: dict[str, float],
    ) -> dict[str, np.ndarray]:
        """A backbone's, but for the rows of its tables and for its towers.

        Args:
            config: of the model.
            geometries: of its grid modalities.
            deviations: of the table's entries, and of the head's where it has its own.
        """
        D, made = config.width, {}
        for n, (name, geometry) in enumerate(geometries.items()):
            if name in config.towers:
                made |= self._projector(
                    f"patch_embedders.{n}.projector", config.towers[name], D, deviations["table"]
                )
                continue
            made |= self._scale(f"patch_scales.{n}", geometry)
            sizes = geometry.patch_size, geometry.tokens, D
            made |= self._embedder(f"patch_embedders.{n}", *sizes, size=deviations["table"])
        digits = sum(sum(config.codecs[name].levels) for name in geometries)
        for name, deviation in deviations.items() if digits else ():
            made[f"{name}.digits"] = self.normal((digits, D), deviation)
        made["log_scale"] = np.array([math.log(1 / 0.14)], np.float32)
        return made | self._linear("projection", D, config.embedding)

    def codec(self, config: CodecConfig, geometry: GridGeometry) -> dict[str, np.ndarray]:
        """All of a codec's."""
        W, P, T, digits = config.width, geometry.patch_size, geometry.tokens, len(config.levels)
        made = self._scale("scale", geometry) | self._embedder("patch_in", P, T, W)
        for part in ("encoder", "decoder"):
            for n in range(config.depth):
                made |= self._block(f"{part}.{n}", config.blocks)
            made[f"{part}_norm.weight"] = np.ones(W, np.float32)
        made |= self._linear("digits_in", W, digits, bias=True)
        made |= self._embedder("digits_out", digits, T, W)
        return made | self._linear("patch_out", W, P, bias=True)

    def _linear(self, name: str, inputs: int, outputs: int, gain: float = 1.0, bias: bool = False):
        made = {f"{name}.weight": self.normal((outputs, inputs), gain * inputs**-0.5)}
        return made | ({f"{name}.bias": np.zeros(outputs, np.float32)} if bias else {})

    def _scale(self, name: str, geometry: GridGeometry):
        mean = np.zeros((geometry.tokens, geometry.patch_size), np.float32)
        return {f"{name}.mean": mean, f"{name}.deviation": np.ones(1, np.float32)}

    def _embedder(self, name: str, patch: int, tokens: int, width: int, size: float = 1.0):
        place = self.normal((tokens, width), size)
        made = {f"{name}.place": place - place.mean(0, keepdims=True)}
        return made | self._linear(f"{name}.linear", patch, width, gain=size, bias=True)

    def _projector(self, name: str, tower: TowerConfig, width: int, size: float):
        if tower.projector == "linear":
            return self._linear(f"{name}.first", tower.width, width, gain=size, bias=True)
        made = self._linear(f"{name}.first", tower.width, width, bias=True)
        return made | self._linear(f"{name}.second", width, width, gain=size, bias=True)

    def _block(self, name: str, config: ModelConfig):
        D, F, K = config.width, config.hidden, config.head_size
        queries, keys, branch = config.heads * K, config.key_value_heads * K, 2 * config.depth
        norms = {"attention_norm": D, "feed_forward_norm": D}
        norms |= {"attention.query_norm": K, "attention.key_norm": K}
        made = {f"{name}.{norm}.weight": np.ones(n, np.float32) for norm, n in norms.items()}
        for part, outputs in (("query", queries), ("key", keys), ("value", keys)):
            made |= self._linear(f"{name}.attention.{part}", D, outputs)
        made |= self._linear(f"{name}.attention.output", queries, D, gain=branch**-0.5)
        for part in ("gate", "up"):
            made |= self._linear(f"{name}.feed_forward.{part}", D, F)
        return made | self._linear(f"{name}.feed_forward.down", F, D, gain=branch**-0.5)
