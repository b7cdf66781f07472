"""A folder of MINDIR graphs as a model, on MindSpore; the graphs are all that is computed."""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from taichu.data.packing import PackedBatch
from taichu.errors import ExportError
from taichu.inference.exported_model import ExportedModel
from taichu.model.codec import run_in_batches
from taichu.model.continuation import continue_rows

GRIDS = 16  # of a call of a codec's graph


class MindirModel(ExportedModel):
    """`embed` and `generate` as `taichu.Taichu` has them; see `ExportedModel`."""

    graphs = "mindir"

    def __init__(self, folder: Path | str):
        super().__init__(folder)
        self._loaded: dict[str, nn.GraphCell] = {}

    def graph(self, name: str) -> nn.GraphCell:
        """A graph, loaded when it is first asked for.

        Raises:
            ExportError: it is missing.
        """
        if name not in self._loaded:
            path = self.folder / f"{name}.mindir"
            if not path.is_file():
                raise ExportError(f"{path}: no such file")
            self._loaded[name] = nn.GraphCell(ms.load(str(path)))
        return self._loaded[name]

    def embed_batch(self, batch: PackedBatch, count: int) -> np.ndarray:
        numbers = np.arange(1, count + 1, dtype=np.int32)
        arrays = (*batch.planes, batch.pool, *batch.patches)
        return self.graph("embed")(ms.Tensor(numbers), *map(ms.Tensor, arrays)).asnumpy()

    def start_reading(self, batch: PackedBatch, rows: int, tokens: int):
        return continue_rows(self.graph("read"), self.graph("step"), batch, rows, tokens)

    def encode_grids(self, modality: str, grids: np.ndarray) -> np.ndarray:
        patches = self.adapters[modality].geometry.patchify(grids)
        return run_in_batches(self.graph(f"encode.{modality}"), patches, GRIDS)

    def decode_codes(self, modality: str, codes: np.ndarray) -> np.ndarray:
        patches = run_in_batches(self.graph(f"decode.{modality}"), codes.astype(np.int32), GRIDS)
        return np.clip(self.adapters[modality].geometry.unpatchify(patches), -1, 1)
