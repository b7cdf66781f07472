"""Tune a small share of a model's parameters on a manifest, by any method of `taichu.tuning`.

    taichu train tune_lora start=runs/demo/model manifest=my/manifest.jsonl method.name=dora

What is trained is printed, and saved as an adapter in PEFT's layout; `taichu merge` makes a model
of it. The three trainings are those of pretrain.
"""

from dataclasses import dataclass
from pathlib import Path

from ascend.start import start_training
from recipes import pretrain
from taichu.data.batches import MixtureConfig
from taichu.data.prepared import prepare
from taichu.inference.pretrained import Taichu
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig
from taichu.tuning.methods import create_method
from taichu.tuning.peft_folder import save_adapter
from taichu.tuning.tuned import tune


@dataclass(frozen=True)
class Config:
    start: str
    manifest: str
    out: str
    cache: str
    method: dict
    mixture: MixtureConfig
    train: TrainConfig
    profile: ProfileConfig | None = None
    validation_batches: int = 8
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Tune; returns the adapter's folder."""
    start_training(config.device, config.precision, config.seed)
    method = create_method(config.method, config.train.steps)

    model = Taichu.from_pretrained(config.start)
    data = prepare(config.manifest, "train", model.config.modalities, config.cache)
    tuned = tune(model.backbone, method)
    print(tuned, flush=True)
    pretrain.train(model, data, config, method.optimizer)
    return save_adapter(tuned, Path(config.out) / "adapter", config.start)
