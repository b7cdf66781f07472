"""Give a trained model a modality that it has never seen, while all that it knows stays as it is.

    taichu train tune_new_modality start=runs/demo/model

The model is grown by the modality, as it is drawn; its codec is trained, and then, by the three
trainings of pretrain, its embedder and its tokens, with everything else frozen. Leaves OUT/start,
the grown model that the adapter is for, OUT/adapter, and OUT/model, both in one.
"""

from dataclasses import dataclass
from pathlib import Path

from ascend.start import start_training
from recipes import pretrain
from recipes.codecs import train_codec
from taichu.config import CodecConfig
from taichu.data.batches import MixtureConfig
from taichu.data.prepared import prepare
from taichu.inference.new_modality import add_modality
from taichu.inference.pretrained import Taichu
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig
from taichu.tuning.peft_folder import save_adapter
from taichu.tuning.trainable_tokens import TrainableTokens
from taichu.tuning.tuned import tune

# it was never tried as ranks; launched so it is refused, with this hint
ONE_PROCESS = "run it by `taichu train`"


@dataclass(frozen=True)
class Config:
    start: str
    manifest: str
    out: str
    cache: str
    modality: str
    adapter: dict
    codec: CodecConfig
    codec_train: TrainConfig
    mixture: MixtureConfig
    train: TrainConfig
    profile: ProfileConfig | None = None
    validation_batches: int = 8
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Grow and train; returns the folder of the model that knows the modality."""
    start_training(config.device, config.precision, config.seed)
    name, out = config.modality, Path(config.out)

    known = Taichu.from_pretrained(config.start)
    model = add_modality(known, name, config.adapter, config.codec)
    data = prepare(config.manifest, "train", model.config.modalities, config.cache)
    train_codec(
        model.codecs[name], model.adapters[name], data.grids[name], config, config.codec_train
    )
    model.measure(data.grids)
    model.save_pretrained(out / "start")

    embedder = f"patch_embedders.{list(model.adapters).index(name)}"
    method = TrainableTokens(tokens=(name,), modules_to_save=(embedder,))
    tuned = tune(model.backbone, method)
    print(tuned, flush=True)
    pretrain.train(model, data, config, method.optimizer)
    save_adapter(tuned, out / "adapter", str(out / "start"))
    tuned.merge()
    model.save_pretrained(out / "model")
    return out / "model"
