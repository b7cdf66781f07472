"""Train the codec of each grid modality (FSQ, 2309.15505).

    taichu train recipes/codecs.yaml manifest=my/manifest.jsonl

Reads every medium of the manifest through its adapter once, then teaches one small autoencoder a
modality to write its patches as codes. Leaves a folder with codecs/<modality>.safetensors.
"""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from ascend.device import choose_device
from ascend.device_matrix import ParallelConfig, choose_device_matrix
from ascend.precision import choose_precision
from ascend.ranks import read_ranks
from modality_adapters.grid import widen
from taichu.data.prepared import prepare, spread
from taichu.inference.pretrained import create_codecs, save_codecs
from taichu.model.codec import Codec, CodecObjective
from taichu.storage.model_folder import create_adapters, read_size
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig, Trainer


@dataclass(frozen=True)
class Config:
    manifest: str
    out: str
    cache: str
    model: str
    train: TrainConfig
    profile: ProfileConfig | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Train all codecs; returns the folder that holds them."""
    print(choose_device(config.device).reason, choose_precision(config.precision), sep="\n")
    choose_device_matrix(ParallelConfig())
    ms.set_seed(config.seed)
    model = read_size(config.model)
    adapters, codecs = create_adapters(model), create_codecs(model)
    data = prepare(config.manifest, "train", model.modalities, config.cache)
    out = Path(config.out)
    for name, codec in codecs.items():
        if len(data.grids[name]):
            train_codec(codec, adapters[name], data.grids[name], config, config.train)
        else:
            print(f"codec {name}: the data has no {name}; it stays untrained", flush=True)
        save_codecs({name: codec}, model, out)
    return out


def train_codec(codec: Codec, adapter, grids: np.ndarray, config, train: TrainConfig):
    """Train the codec of one modality.

    Args:
        adapter: of the modality.
        grids: (n, T, Y, X, C), of the training split.
        config: a `Config`, or another recipe's with these of its fields: out, cache, profile, seed.
        train: how it is trained.
    """
    rank, geometry, out = read_ranks().rank, adapter.geometry, Path(config.out)
    codec.scale.measure(geometry.patchify(spread(grids)))

    def batch(k):
        random = np.random.default_rng((config.seed, k, *([rank] if rank else [])))
        chosen = widen(grids[np.sort(random.choice(len(grids), codec.samples))])
        changed = np.stack([adapter.augment(grid, random) for grid in chosen])
        return Grids(geometry.patchify(changed))

    objective = CodecObjective(codec)
    folder, graphs = out / "training" / adapter.name, Path(config.cache) / "graphs"
    how = train, folder, None, f"codec {adapter.name}", graphs, config.profile
    Trainer(objective, batch, ["error"], *how).run()


@dataclass(frozen=True)
class Grids:
    """A batch of patches (S, T, P)."""

    patches: np.ndarray

    def arrays(self):
        return (self.patches,)
