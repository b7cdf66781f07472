"""A model folder as ONNX graphs: computed from its files alone, without MindSpore.

OUT/embed.onnx  read.onnx  step.onnx  encode.<modality>.onnx  decode.<modality>.onnx
OUT/weights.safetensors   all graphs' weights, once
OUT/export.json           what computes them, and alignment's scale
OUT/config.json, preprocessor_config.json, tokenizer.*, and chat_template.jinja where there is one
    as in the model's folder
"""

from pathlib import Path

import numpy as np

from taichu.config import ModelConfig
from taichu.data.conversations.template import read_template
from taichu.export.backbone_graphs import BackboneGraphs
from taichu.export.codec_graphs import CodecGraphs
from taichu.export.graph import Graph, Weights
from taichu.inference.exported_model import write_export
from taichu.model.towers.shapes import tower_prefixes
from taichu.storage.model_folder import create_adapters, grids_of, read_config
from taichu.storage.tensor_file import load_tensors, save_tensors
from taichu.storage.tensor_stream import list_tensors
from taichu.tokenizer import read_tokenizer
from taichu.vocabulary import Vocabulary

WEIGHTS = "weights.safetensors"


def export_onnx(folder: Path | str, out: Path | str) -> Path:
    """Write the graphs of a model folder.

    Args:
        folder: that `Taichu.save_pretrained` wrote.
        out: a new folder, or one that an earlier export wrote.

    Raises:
        CheckpointError: a file of the folder is missing or damaged.
    """
    folder, out = Path(folder), Path(out)
    config, tokenizer = read_config(folder), read_tokenizer(folder)
    adapters = create_adapters(config)
    vocabulary = Vocabulary.of_model(config, tokenizer)
    tensors, weights = load_tensors(folder / "model.safetensors")[0], Weights()
    for name, prefix in tower_prefixes(config).items():
        of_tower = load_tensors(folder / "towers" / f"{name}.safetensors")[0]
        tensors |= {prefix + key: value for key, value in of_tower.items()}
    backbone = BackboneGraphs(config, tensors, grids_of(adapters), vocabulary.size, weights)
    graphs = [backbone.embed(), backbone.read(), backbone.step()]
    graphs += codec_graphs(folder, config, adapters, weights)
    write_graphs(graphs, weights, out)
    scale = float(np.exp(tensors["log_scale"][0]))
    write_export(out, "onnx", scale, config, adapters, tokenizer, read_template(folder))
    return out


def codec_graphs(
    folder: Path, config: ModelConfig, adapters: dict, weights: Weights
) -> list[Graph]:
    """Encoder and decoder of each modality."""
    graphs = []
    for name, adapter in adapters.items():
        tensors = load_tensors(folder / "codecs" / f"{name}.safetensors")[0]
        codec = CodecGraphs(name, config.codecs[name], adapter.geometry, tensors, weights)
        graphs += [codec.encode(), codec.decode()]
    return graphs


def write_graphs(graphs: list[Graph], weights: Weights, out: Path):
    """Write the weights, then the graphs that point into their file."""
    save_tensors(out / WEIGHTS, weights.arrays)
    stored = list_tensors(out / WEIGHTS)[0]
    places = {name: (tensor.start, tensor.nbytes) for name, tensor in stored.items()}
    for graph in graphs:
        graph.save(out / f"{graph.name}.onnx", WEIGHTS, places)
