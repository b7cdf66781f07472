"""A folder of MINDIR graphs as a model, on MindSpore; nothing of the model's own code is used."""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from taichu.codec import run_in_batches
from taichu.errors import ExportError
from taichu.model_folder import read_config, read_json, read_tokenizer
from taichu.packing import PackedBatch
from taichu.unified_model import UnifiedModel

GRIDS = 16  # of a call of a codec's graph


class MindirModel(UnifiedModel):
    """`embed` and `generate` as `taichu.Taichu` has them.

    Args:
        folder: that ``taichu export --format mindir`` wrote.

    Raises:
        ExportError: the folder is no such export, or lacks a graph.
        CheckpointError: another file is missing or malformed.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        settings = read_json(self.folder / "export.json")
        if settings.get("format") != "mindir":
            raise ExportError(f"{self.folder / 'export.json'}: format must be 'mindir'")
        super().__init__(read_config(self.folder), read_tokenizer(self.folder))
        self._score_scale, self._graphs = float(settings["score_scale"]), {}

    @property
    def score_scale(self) -> float:
        return self._score_scale

    def graph(self, name: str) -> nn.GraphCell:
        """A graph, loaded when it is first asked for."""
        if name not in self._graphs:
            path = self.folder / f"{name}.mindir"
            if not path.is_file():
                raise ExportError(f"{path}: no such file")
            self._graphs[name] = nn.GraphCell(ms.load(str(path)))
        return self._graphs[name]

    def embed_batch(self, batch: PackedBatch, count: int) -> np.ndarray:
        numbers = np.arange(1, count + 1, dtype=np.int32)
        arrays = (*self._rows(batch), batch.pool, *batch.patches)
        return self.graph("embed")(ms.Tensor(numbers), *map(ms.Tensor, arrays)).asnumpy()

    def start_reading(self, batch: PackedBatch, rows: int, tokens: int):
        segment = ms.Tensor(batch.segment)
        kept = self.graph("read")(*map(ms.Tensor, (*self._rows(batch), *batch.patches)))
        shape = rows, self.config.heads, tokens, self.config.head_size
        written, step = (ms.Tensor(np.zeros(shape, np.float32)),) * len(kept), self.graph("step")

        def next_logits(ids: np.ndarray, coords: np.ndarray, made: int) -> np.ndarray:
            nonlocal written
            newest = map(ms.Tensor, (ids, coords, np.array([made], np.int32)))
            logits, *written = step(*newest, segment, *kept, *written)
            return logits.asnumpy()

        return next_logits

    def encode_grids(self, modality: str, grids: np.ndarray) -> np.ndarray:
        patches = self.adapters[modality].geometry.patchify(grids)
        return run_in_batches(self.graph(f"encode.{modality}"), patches, GRIDS)

    def decode_codes(self, modality: str, codes: np.ndarray) -> np.ndarray:
        patches = run_in_batches(self.graph(f"decode.{modality}"), codes.astype(np.int32), GRIDS)
        return np.clip(self.adapters[modality].geometry.unpatchify(patches), -1, 1)

    def _rows(self, batch: PackedBatch) -> tuple[np.ndarray, ...]:
        return batch.ids, batch.source, batch.coords, batch.segment, batch.span
