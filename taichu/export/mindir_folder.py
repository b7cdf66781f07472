"""A model folder as MindSpore's own graphs (MINDIR), of any number of rows and tokens.

    OUT/embed.mindir  read.mindir  step.mindir  encode.<modality>.mindir  decode.<modality>.mindir
    OUT/export.json, config.json, preprocessor_config.json, tokenizer.*

Each graph holds its weights. The codecs' graphs take `taichu.model.codec.Codec`'s number of grids.
"""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend.operators.form import plain_forms
from taichu.errors import ExportError
from taichu.inference.exported_model import write_export
from taichu.inference.pretrained import Taichu
from taichu.storage.model_folder import read_config


def export_mindir(folder: Path | str, out: Path | str) -> Path:
    """Write the graphs of a model folder.

    Args:
        folder: that `Taichu.save_pretrained` wrote.
        out: a new folder, or one that an earlier export wrote.

    Raises:
        CheckpointError: a file of the folder is missing or damaged.
        ExportError: the model has experts, whose rooms have sizes that no graph of any shape knows,
            or towers, which take grids of a known number.
    """
    out, config = Path(out), read_config(folder)
    for part in ("experts", "towers"):
        if getattr(config, part):
            raise ExportError(f"{folder}: a model with {part} has no MINDIR; export it to onnx")
    with plain_forms():  # the compiled kernels are no part of MindSpore
        model = Taichu.from_pretrained(folder)
        out.mkdir(parents=True, exist_ok=True)
        for name, (cell, inputs) in graphs_of(model).items():
            ms.export(cell, *inputs, file_name=str(out / name), file_format="MINDIR")
    settings = model.config, model.adapters, model.vocabulary.tokenizer, model.template
    write_export(out, "mindir", model.score_scale, *settings)
    return out


def graphs_of(model: Taichu) -> dict[str, tuple[nn.Cell, list[ms.Tensor]]]:
    """By name, each graph's Cell and the shapes and types of its inputs."""
    config, rows = model.config, [_any(None, None), _any(None, None), _any(None, None, 3)]
    rows += [_any(None, None), _any(None, None)]
    patches = [_any(None, size, kind=ms.float32) for _, size in model.grids.values()]
    kept = _any(None, config.heads, None, config.head_size, kind=ms.float32)
    newest = [_any(None), _any(None, 3), _any(1), _any(None, None)]
    found = {
        "embed": (_Embed(model), [_any(None), *rows, _any(None, None), *patches]),
        "read": (_Call(model.continuation, "read"), [*rows, *patches]),
        "step": (_Call(model.continuation, "step"), newest + [kept] * (4 * config.depth)),
    }
    for name, codec in model.codecs.items():
        grids = ms.Tensor(np.zeros(codec.shape, np.float32))
        codes = ms.Tensor(np.zeros(codec.shape[:2], np.int32))
        found[f"encode.{name}"] = _Call(codec, "encode"), [grids]
        found[f"decode.{name}"] = _Call(codec, "decode"), [codes]
    return found


def _any(*shape, kind=ms.int32) -> ms.Tensor:
    """An input; None stands for a dimension that may be any."""
    return ms.Tensor(shape=list(shape), dtype=kind)


class _Call(nn.Cell):
    """A method of a Cell as a Cell."""

    def __init__(self, cell: nn.Cell, method: str):
        super().__init__(auto_prefix=False)
        self.cell, self.method = cell, getattr(cell, method)

    def construct(self, *arrays):
        return self.method(*arrays)


class _Embed(nn.Cell):
    """Embeddings of the numbers (E,) that are asked for; `Backbone.embed` wants their count, which
    a graph of any shape cannot take."""

    def __init__(self, model: Taichu):
        super().__init__(auto_prefix=False)
        self.backbone = model.backbone

    def construct(self, numbers_E, ids, source, coords, segment, span, pool, *patches):
        hidden_ND = self.backbone(ids, source, coords, segment, span, *patches)
        pooled_EN = (numbers_E.reshape((-1, 1)) == pool.reshape((1, -1))).astype(ms.float32)
        count_E1 = ops.clamp(ops.sum(pooled_EN, 1, True), 1.0)
        out_EC = self.backbone.projection(ops.matmul(pooled_EN, hidden_ND) / count_E1)
        return out_EC * ops.pow(ops.sum(out_EC * out_EC, -1, True) + 1e-12, -0.5)
