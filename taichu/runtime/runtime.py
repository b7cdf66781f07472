"""An exported folder as a model: files in, vectors and files out."""

from pathlib import Path

import numpy as np

from taichu.data.packing import PLANES, PackedBatch
from taichu.inference.exported_model import ExportedModel
from taichu.runtime.cache import Cache
from taichu.runtime.providers import choose_provider
from taichu.runtime.sessions import Sessions

GRIDS = 64  # that a codec's graph takes at a time


class Runtime(ExportedModel):
    """A model on ONNX Runtime; `embed` and `generate` as `taichu.Taichu` has them.

    Args:
        folder: that ``taichu export`` wrote.
        device: "auto" (CUDA where it works, else the CPU), "cpu" or "cuda".
        threads: of a graph; 0: as many as there are cores.

    Attributes:
        provider: what computes, and why.

    Raises:
        ExportError: the folder is no ONNX export, or the device cannot be used.
        CheckpointError: a file is missing or malformed.
    """

    graphs = "onnx"

    def __init__(self, folder: Path | str, device: str = "auto", threads: int = 0):
        super().__init__(folder)
        self.provider = choose_provider(device, self.folder / "step.onnx")
        self.sessions = Sessions(self.folder, self.provider, threads)

    def embed_batch(self, batch: PackedBatch, count: int) -> np.ndarray:
        counts = {"pool": batch.pool, "count": np.array([count], np.int64)}
        return self.sessions("embed", **self._rows(batch), **counts)[0]

    def start_reading(self, batch: PackedBatch, rows: int, tokens: int):
        read, lengths = self.read_conditions(batch)
        cache = Cache(self.sessions, self.config, rows, int(lengths.max()) + tokens)
        for row in range(rows):
            condition = row // (rows // len(lengths))
            cache.fill(row, int(lengths[condition]), read, condition)

        def next_logits(ids: np.ndarray, coords: np.ndarray, made: int) -> np.ndarray:
            return cache.step(ids, coords)

        return next_logits

    def read_conditions(self, batch: PackedBatch) -> tuple[list[np.ndarray], np.ndarray]:
        """Keys and values (B, G, L, K) of each block after B conditions, one a row, and how many
        tokens (B,) each has."""
        return self.sessions("read", **self._rows(batch)), (batch.segment > 0).sum(1)

    def encode_grids(self, modality: str, grids: np.ndarray) -> np.ndarray:
        geometry = self.adapters[modality].geometry
        name = f"encode.{modality}"
        parts = [
            self.sessions(name, patches=geometry.patchify(grids[i : i + GRIDS]))[0]
            for i in range(0, len(grids), GRIDS)
        ]
        return np.concatenate(parts)

    def decode_codes(self, modality: str, codes: np.ndarray) -> np.ndarray:
        codes, name = codes.astype(np.int32), f"decode.{modality}"
        parts = [
            self.sessions(name, codes=codes[i : i + GRIDS])[0] for i in range(0, len(codes), GRIDS)
        ]
        geometry = self.adapters[modality].geometry
        return np.clip(geometry.unpatchify(np.concatenate(parts)), -1, 1)

    def _rows(self, batch: PackedBatch) -> dict[str, np.ndarray]:
        """What of a batch the graphs `embed` and `read` take, by name."""
        inputs = dict(zip(PLANES, batch.planes))
        patches = {f"patches.{name}": p for name, p in zip(self.adapters, batch.patches)}
        return inputs | patches
