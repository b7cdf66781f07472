"""The model as a user holds it: files in, vectors and files out, one folder on disk."""

import dataclasses
import json
from pathlib import Path

import mindspore as ms
import numpy as np

import taichu
from ascend.device_matrix import one_rank
from ascend.ranks import read_ranks
from modality_adapters import create_adapter
from taichu.checkpoint import (
    as_tensors,
    load_parameters,
    load_tensors,
    named_parameters,
    save_tensors,
)
from taichu.codec import Codec, run_in_batches
from taichu.config import ModelConfig, build
from taichu.continuation import Continuation
from taichu.errors import CheckpointError, ConfigError, GenerationError
from taichu.generation import Generated, generate
from taichu.layout import Segment, Span
from taichu.model import Backbone
from taichu.packing import BatchShape, Layout, pack
from taichu.prepared import spread
from taichu.sampling import Sampling
from taichu.stage_parts import gather_tensors, shapes_elsewhere
from taichu.vocabulary import TEXT, Vocabulary

EMBED_ROWS, EMBED_LENGTH = 16, 128  # shape of the batches that `embed_many` fills


class Taichu:
    """A backbone with its vocabulary, adapters and codecs.

    Args:
        config: sizes; ``config.pieces`` is set to the tokenizer's.
        tokenizer: a SentencePiece model, as bytes.
    """

    def __init__(self, config: ModelConfig, tokenizer: bytes):
        codes = {name: codec.codes for name, codec in config.codecs.items()}
        self.vocabulary = Vocabulary(tokenizer, codes)
        self.config = dataclasses.replace(config, pieces=self.vocabulary.pieces)
        self.adapters = create_adapters(config)
        self.backbone = Backbone(config, self.vocabulary.size, list(self.grids.values()))
        self.continuation = Continuation(self.backbone)
        self.codecs = create_codecs(config)
        self._compiled = {}

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """(tokens, patch size) of each grid modality, in order."""
        geometries = {name: adapter.geometry for name, adapter in self.adapters.items()}
        return {name: (g.tokens, g.patch_size) for name, g in geometries.items()}

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Taichu":
        """Load a folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit the others.
        """
        folder = Path(folder)
        config = read_config(folder)
        tokenizer = folder / "tokenizer.model"
        if not tokenizer.is_file():
            raise CheckpointError(f"{tokenizer}: no such file")
        model = cls(config, tokenizer.read_bytes())
        path = folder / "model.safetensors"
        tensors, elsewhere = load_tensors(path)[0], shapes_elsewhere(model.backbone)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in elsewhere}
        load_parameters(named_parameters(model.backbone), tensors, path)
        load_codecs(model.codecs, model.config, folder)
        return model

    def save_pretrained(self, folder: Path | str):
        """Write config.json, preprocessor_config.json, tokenizer.model, model.safetensors and one
        codecs/<modality>.safetensors a modality; any tool that knows safetensors can read them. Of
        several ranks all have to call this, and the first writes."""
        folder, tensors = Path(folder), gather_tensors(self.backbone)
        if not read_ranks().first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self.vocabulary.tokenizer)
        save_tensors(folder / "model.safetensors", tensors)
        save_codecs(self.codecs, self.config, folder)
        content = dataclasses.asdict(self.config)
        modalities = {n: a.settings() for n, a in self.adapters.items()}
        del content["modalities"]
        versions = {"model_type": "taichu", "taichu_version": taichu.__version__}
        write_json(folder / "config.json", {**versions, **content})
        write_json(folder / "preprocessor_config.json", {"modalities": modalities})

    def embed(self, **inputs) -> np.ndarray:
        """Unit vectors of ``text=``, ``image=``, ``audio=``, ``video=``, ``shape3d=``.

        Each is a string (text) or a path (media), or a list of them; several modalities at once
        form one group, embedded together. A modality's list may be as long as the others' only.

        Returns:
            (C,) float32 for single values, (n, C) for lists.

        Raises:
            MediaError: a file cannot be read. GenerationError: an unknown modality, or nothing.
        """
        if not inputs:
            raise GenerationError(f"nothing to embed; give {', '.join((TEXT, *self.adapters))}")
        conditions, single = as_conditions(inputs, self.adapters)
        vectors = self.embed_many([self.read(condition) for condition in conditions])
        return vectors[0] if single else vectors

    def generate(self, into: str, sampling: Sampling | None = None, **inputs):
        """Make text or media from any subset of modalities, none included.

        Args:
            into: "text" or a grid modality.
            sampling: temperature and the rest; see `Sampling`.
            inputs: as for `embed`; a ``seed=`` among them sets the sampling's.

        Returns:
            `Generated` (``.save(path)``; ``.text`` or ``.grid``), or a list of them for lists.

        Raises:
            GenerationError: the modality is unknown. MediaError: a file cannot be read.
        """
        sampling = sampling or Sampling()
        if "seed" in inputs:
            sampling = dataclasses.replace(sampling, seed=inputs.pop("seed"))
        conditions, single = as_conditions(inputs, self.adapters)
        made = generate(self, into, [self.read(c) for c in conditions], sampling)
        return made[0] if single else made

    def measure(self, grids: dict[str, np.ndarray]):
        """Set the scale of each modality's patches by the grids (n, T, Y, X, C) of the training
        data; to be called once, before training."""
        for scale, (name, adapter) in zip(self.backbone.patch_scales, self.adapters.items()):
            if self.backbone.reads and len(grids.get(name, ())):
                scale.measure(adapter.geometry.patchify(spread(grids[name])))

    def read(self, condition: dict) -> dict:
        """Modality -> path or string, to modality -> grid or string."""
        return {
            name: value if name == TEXT else self.adapters[name].read(value)
            for name, value in condition.items()
        }

    def observe(self, content: dict) -> tuple[Span, ...]:
        """Modality -> grid or string, to the spans of a segment that observes them."""
        spans = []
        for name, value in content.items():
            if name == TEXT:
                spans.append(Span(TEXT, ids=np.array(self.vocabulary.encode(value), np.int32)))
            else:
                geometry = self.adapters[name].geometry
                patches = geometry.patchify(value)
                spans.append(Span(name, patches=patches, coordinates=geometry.coordinates()))
        return tuple(spans)

    def embed_many(self, contents: list[dict]) -> np.ndarray:
        """Unit vectors (n, C) of many groups of grids and strings, packed together."""
        segments = [Segment(self.observe(content), embedding=1) for content in contents]
        if len(segments) % 2:
            segments.append(segments[-1])
        longest = max(len(segment) for segment in segments)
        length = max(EMBED_LENGTH, -(-longest // 64) * 64)
        # segments go in twos, as a batch's embeddings do; the caption tells which two they were
        waiting = [
            Layout((segments[i], segments[i + 1]), 0, i, aligned=True)
            for i in range(0, len(segments), 2)
        ]
        places = EMBED_ROWS * length
        patches = tuple(
            (name, places // 2 // a.geometry.tokens * a.geometry.tokens, a.geometry.patch_size)
            for name, a in self.adapters.items()
        )
        shape = BatchShape(EMBED_ROWS, length, 1, places // 16, patches)
        vectors = np.zeros((len(segments), self.config.embedding), np.float32)
        run = self.compiled("embed", self._embed)
        while waiting:
            batch, waiting = pack(waiting, shape, self.vocabulary)
            arrays = (batch.ids, batch.source, batch.coords, batch.segment, batch.span, batch.pool)
            made = run(
                2 * shape.pairs, *(ms.Tensor(a) for a in (*arrays, *batch.patches))
            ).asnumpy()
            for pair, first in enumerate(batch.pair_caption):
                if first >= 0:
                    vectors[first : first + 2] = made[2 * pair : 2 * pair + 2]
        return vectors[: len(contents)]

    def _embed(self, count, ids, source, coords, segment, span, pool, *patches):
        hidden = self.backbone(ids, source, coords, segment, span, *patches)
        return self.backbone.embed(hidden, pool, count)

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

    def compiled(self, name: str, function):
        """The function as one compiled graph a shape, kept from call to call."""
        if name not in self._compiled:
            self._compiled[name] = ms.jit(function)
        return self._compiled[name]


def read_config(folder: Path) -> ModelConfig:
    """The settings of a model folder.

    Raises:
        CheckpointError: a file is missing or malformed.
    """
    path = folder / "config.json"
    content = {**read_json(path), **read_json(folder / "preprocessor_config.json")}
    if content.pop("model_type", None) != "taichu":
        raise CheckpointError(f"{path}: model_type is not 'taichu'")
    content.pop("taichu_version", None)
    try:
        config = build(ModelConfig, content, str(path))
        create_adapters(config)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return config


def create_adapters(config: ModelConfig) -> dict:
    """The adapters of a model, in its order.

    Raises:
        ConfigError: a wrong name or setting.
    """
    try:
        return {name: create_adapter(name, s) for name, s in config.modalities.items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"modalities: {error}") from None


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
        save_tensors(path, as_tensors(named_parameters(codec)), _codec_settings(config, name))


def load_codecs(codecs: dict[str, Codec], config: ModelConfig, folder: Path | str):
    """Read what `save_codecs` wrote.

    Raises:
        CheckpointError: a codec is missing or was made for other settings.
    """
    for name, codec in codecs.items():
        path = Path(folder) / "codecs" / f"{name}.safetensors"
        tensors, made_for = load_tensors(path)
        wanted = _codec_settings(config, name)
        if made_for != wanted:
            raise CheckpointError(f"{path}: was made with {made_for}, the model wants {wanted}")
        load_parameters(named_parameters(codec), tensors, path)


def _codec_settings(config: ModelConfig, name: str) -> dict:
    modality = create_adapter(name, config.modalities[name]).settings()
    settings = {"codec": dataclasses.asdict(config.codecs[name]), "modality": modality}
    return json.loads(json.dumps(settings))  # as it will be read back: lists, not tuples


def as_conditions(inputs: dict, modalities) -> tuple[list[dict], bool]:
    """Keyword inputs -> one dict a result, and whether single values were given."""
    for name in inputs:
        if name != TEXT and name not in modalities:
            known = ", ".join((TEXT, *modalities))
            raise GenerationError(f"this model has no modality {name!r}; it has {known}")
    lists = {name: value for name, value in inputs.items() if isinstance(value, (list, tuple))}
    if not lists:
        return [dict(inputs)], True
    counts = {len(value) for value in lists.values()}
    if len(counts) > 1 or len(lists) < len(inputs):
        raise GenerationError("give lists of equal length, or single values")
    if counts == {0}:
        raise GenerationError("the lists are empty")
    return [{n: v[i] for n, v in lists.items()} for i in range(counts.pop())], False


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckpointError: missing or malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def write_json(path: Path, content: dict):
    """Write a JSON object, readable, atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


__all__ = ["Generated", "Sampling", "Taichu"]
