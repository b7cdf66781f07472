"""The model on MindSpore: trained, saved, loaded and used."""

from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.device_matrix import one_rank
from ascend.ranks import read_ranks
from taichu.config import ModelConfig
from taichu.data.conversations.template import read_template, write_template
from taichu.data.packing import PackedBatch
from taichu.data.prepared import spread
from taichu.errors import CheckpointError
from taichu.inference.unified_model import UnifiedModel
from taichu.model.backbone import Backbone
from taichu.model.codec import Codec, run_in_batches
from taichu.model.continuation import Continuation, continue_rows
from taichu.model.stage_parts import gather_tensors, shapes_elsewhere
from taichu.model.towers.shapes import tower_prefixes
from taichu.storage.checkpoint import as_tensors, load_parameters, named_parameters
from taichu.storage.model_folder import codec_settings, create_adapters, read_config, write_settings
from taichu.storage.tensor_file import load_tensors, save_tensors
from taichu.tokenizer import Tokenizer, read_tokenizer


class Taichu(UnifiedModel):
    """A backbone with its vocabulary, adapters and codecs; see `UnifiedModel`."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer):
        super().__init__(config, tokenizer)
        self.backbone = Backbone(config, self.vocabulary.size, list(self.grids.values()))
        self.continuation = Continuation(self.backbone)
        self.codecs = create_codecs(config)
        self._compiled = {}

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Taichu":
        """Load a folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit the others.
        """
        folder = Path(folder)
        model = cls(read_config(folder), read_tokenizer(folder))
        path = folder / "model.safetensors"
        tensors, elsewhere = load_tensors(path)[0], shapes_elsewhere(model.backbone)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in elsewhere}
        towers, parameters = tower_prefixes(model.config), named_parameters(model.backbone)
        own = {n: p for n, p in parameters.items() if not n.startswith(tuple(towers.values()))}
        load_parameters(own, tensors, path)
        for name, prefix in towers.items() if model.backbone.reads else ():
            path = folder / "towers" / f"{name}.safetensors"
            of_tower = cut_prefix(parameters, prefix)
            load_parameters(of_tower, load_tensors(path)[0], path)
        load_codecs(model.codecs, model.config, folder)
        model.template = read_template(folder)
        return model

    def save_pretrained(self, folder: Path | str):
        """Write config.json, preprocessor_config.json, the tokenizer's file, model.safetensors, one
        codecs/<modality>.safetensors a modality, towers/<modality>.safetensors of those with a
        tower, and chat_template.jinja where the model has one; any tool that knows safetensors can
        read them. Of several ranks all have to call this, and the first writes."""
        folder, tensors = Path(folder), gather_tensors(self.backbone)
        if not read_ranks().first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        towers = tower_prefixes(self.config)
        for name, prefix in towers.items():
            save_tensors(folder / "towers" / f"{name}.safetensors", cut_prefix(tensors, prefix))
        prefixes = tuple(towers.values())
        own = {n: tensor for n, tensor in tensors.items() if not n.startswith(prefixes)}
        save_tensors(folder / "model.safetensors", own)
        save_codecs(self.codecs, self.config, folder)
        write_settings(folder, self.config, self.adapters, self.vocabulary.tokenizer)
        if self.template:
            write_template(folder, self.template)

    def measure(self, grids: dict[str, np.ndarray]):
        """Set the scale of each modality's patches by the grids (n, T, Y, X, C) of the training
        data, where no training has set it; to be called before training."""
        for scale, (name, adapter) in zip(self.backbone.patch_scales, self.adapters.items()):
            if self.backbone.reads and len(grids.get(name, ())) and not scale.measured:
                scale.measure(adapter.geometry.patchify(spread(grids[name])))

    def embed_batch(self, batch: PackedBatch, count: int) -> np.ndarray:
        run = self.compiled("embed", self._embed)
        arrays = (*batch.planes, batch.pool, *batch.patches)
        return run(count, *map(ms.Tensor, arrays)).asnumpy()

    def _embed(self, count, ids, source, coords, segment, span, pool, *patches):
        hidden = self.backbone(ids, source, coords, segment, span, *patches)
        return self.backbone.embed(hidden, pool, count)

    def start_reading(self, batch: PackedBatch, rows: int, tokens: int):
        read = self.compiled("read", self.continuation.read)
        step = self.compiled("step", self.continuation.step)
        return continue_rows(read, step, batch, rows, tokens)

    @property
    def score_scale(self) -> float:
        return float(np.exp(self.backbone.log_scale.asnumpy()[0]))

    def encode_grids(self, modality: str, grids: np.ndarray) -> np.ndarray:
        """Grids (n, T, Y, X, C) -> codes (n, tokens) int32."""
        codec, geometry = self.codecs[modality], self.adapters[modality].geometry
        run = self.compiled(f"encode.{modality}", codec.encode)
        parts = [
            run_in_batches(run, geometry.patchify(grids[i : i + 1024]), codec.samples)
            for i in range(0, len(grids), 1024)
        ]
        return np.concatenate(parts)

    def decode_codes(self, modality: str, codes: np.ndarray) -> np.ndarray:
        """Codes (n, tokens) -> grids (n, T, Y, X, C) float32 in [-1, 1]."""
        codec, geometry = self.codecs[modality], self.adapters[modality].geometry
        run = self.compiled(f"decode.{modality}", codec.decode)
        patches = run_in_batches(run, codes.astype(np.int32), codec.samples)
        return np.clip(geometry.unpatchify(patches), -1, 1)

    def forget_graphs(self):
        """Have all graphs compiled again; after the backbone's Cells were changed."""
        self._compiled = {}

    def compiled(self, name: str, function):
        """The function as one compiled graph a shape, kept from call to call."""
        if name not in self._compiled:
            self._compiled[name] = ms.jit(function)
        return self._compiled[name]


def cut_prefix(named: dict, prefix: str) -> dict:
    """What is called so, by the rest of its name."""
    return {n.removeprefix(prefix): value for n, value in named.items() if n.startswith(prefix)}


def create_codecs(config: ModelConfig) -> dict[str, Codec]:
    """New codecs of a model, in its order; each rank holds all of them."""
    adapters = create_adapters(config)
    with one_rank():
        return {name: Codec(config.codecs[name], a.geometry) for name, a in adapters.items()}


def save_codecs(codecs: dict[str, Codec], config: ModelConfig, folder: Path | str):
    """Write codecs/<modality>.safetensors, each with the settings it was made for; of several ranks
    the first does."""
    if not read_ranks().first:
        return
    for name, codec in codecs.items():
        path = Path(folder) / "codecs" / f"{name}.safetensors"
        save_tensors(path, as_tensors(named_parameters(codec)), codec_settings(config, name))


def load_codecs(codecs: dict[str, Codec], config: ModelConfig, folder: Path | str):
    """Read what `save_codecs` wrote.

    Raises:
        CheckpointError: a codec is missing or was made for other settings.
    """
    for name, codec in codecs.items():
        path = Path(folder) / "codecs" / f"{name}.safetensors"
        tensors, made_for = load_tensors(path)
        wanted = codec_settings(config, name)
        if made_for != wanted:
            raise CheckpointError(f"{path}: was made with {made_for}, the model wants {wanted}")
        load_parameters(named_parameters(codec), tensors, path)
