"""Train the backbone: grouped alignment, grouped decoding and joint decoding in one compiled step.

    taichu train recipes/pretrain.yaml manifest=my/manifest.jsonl codecs=runs/codecs

Each step's batch packs one group's segments of all three trainings into the same rows; the
weights in ``mixture`` say how much of each. A weight of 0 leaves a training out, which is all that
the recipes grouped_alignment, grouped_decoding and joint_decoding change.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ascend.device_matrix import ParallelConfig
from ascend.operators import AdamW
from ascend.ranks import mean_over_ranks
from ascend.start import start_training
from taichu.config import ModelConfig
from taichu.data.batches import Batches, MixtureConfig
from taichu.data.one_at_a_time import one_at_a_time
from taichu.data.prepared import PreparedData, prepare
from taichu.errors import ConfigError, ManifestError
from taichu.inference.pretrained import Taichu, load_codecs
from taichu.storage.model_folder import create_adapters, read_size
from taichu.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from taichu.training.objectives import Objective
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig, Trainer


@dataclass(frozen=True)
class Config:
    manifest: str
    codecs: str
    out: str
    cache: str
    model: str
    mixture: MixtureConfig
    train: TrainConfig
    profile: ProfileConfig | None = None
    tokenizer: str | None = None
    start: str | None = None
    validation_batches: int = 8
    parallel: ParallelConfig = ParallelConfig()
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Train; returns the model folder."""
    matrix = start_training(config.device, config.precision, config.seed, config.parallel)
    if config.mixture.length % matrix.sequence.size:
        raise ConfigError(
            f"parallel.sequence={matrix.sequence.size} must divide "
            f"mixture.length={config.mixture.length}"
        )
    size, out = read_size(config.model), Path(config.out)

    data = prepare(config.manifest, "train", size.modalities, config.cache)
    if config.start:
        model = start_from(config.start, size)
    elif size.towers:
        named = ", ".join(size.towers)
        raise ConfigError(f"start: the towers of {named} want a folder that `taichu convert` wrote")
    else:
        model = Taichu(size, read_tokenizer(config, size, data))
    model.measure(data.grids)
    load_codecs(model.codecs, size, config.codecs)
    train(model, data, config)
    model.save_pretrained(out / "model")
    return out / "model"


def train(
    model: Taichu, data: PreparedData, config, make_optimizer=AdamW, make_objective=Objective
):
    """Train what of a model's backbone is to be trained.

    Args:
        data: the training split.
        config: a `Config`, or another recipe's with these of its fields: manifest, out, cache,
            mixture, train, profile, validation_batches, seed.
        make_optimizer: see `Trainer`.
        make_objective: makes the objective, called as `Objective` is.
    """
    mixture, skipped = config.mixture, data.skipped
    decoding = mixture.grouped_weight > 0 or mixture.joint_weight > 0

    def draw(part: PreparedData) -> Batches:
        codes = {}
        for name, grids in part.grids.items():
            if decoding and len(grids):
                codes[name] = model.encode_grids(name, grids)
        return Batches(part, model.vocabulary, model.adapters, codes, mixture, config.seed)

    batches = draw(data)
    try:
        test = prepare(config.manifest, "test", model.config.modalities, config.cache)
        test_batches, skipped = draw(test), skipped + test.skipped
    except (ManifestError, ConfigError) as error:
        print(f"no validation: {error}", flush=True)
        test_batches = None
    quotas = dict(zip(mixture.groups, batches.quotas))
    print(f"samples of a batch, by its group and the caption observed: {quotas}", flush=True)

    objective = make_objective(model.backbone, model.vocabulary, mixture.alignment_weight, decoding)

    def validate() -> dict:
        rows = []
        for k in range(config.validation_batches):
            rows.append(trainer.evaluate(*test_batches(k).arrays())[1].asnumpy())
        # a batch holds one group: of each part, the mean over the batches that have it, if any
        means = np.sum(rows, 0) / np.maximum(np.count_nonzero(rows, 0), 1)
        means = mean_over_ranks(means.astype(np.float32))
        return {n: round(float(v), 5) for n, v in zip(objective.part_names, means) if v}

    trainer = Trainer(
        objective,
        batches,
        objective.part_names,
        config.train,
        Path(config.out) / "training" / "backbone",
        validate if test_batches else None,
        "backbone",
        Path(config.cache) / "graphs",
        config.profile,
        make_optimizer,
    )
    trainer.run()
    if skipped:
        print(f"{len(skipped)} rows were skipped:", *skipped, sep="\n  ", flush=True)


def start_from(folder: str, size: ModelConfig) -> Taichu:
    """The model of an earlier training, such as grouped alignment alone.

    Raises:
        ConfigError: it is not of this size.
    """
    model = Taichu.from_pretrained(folder)
    own, wanted = asdict(model.config), asdict(size)
    for settings in (own, wanted):
        del settings["pieces"]  # a tokenizer may have fewer than the size allows
        del settings["modalities"]  # spelled out in the folder: they are compared as adapters
    if own != wanted or model.adapters != create_adapters(size):
        raise ConfigError(f"start: the model in {folder} is not of the size that `model` names")
    return model


def read_tokenizer(config: Config, size: ModelConfig, data: PreparedData) -> Tokenizer:
    """The tokenizer that is named, or one trained on the texts of the data."""
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    texts = [text for sample in data.samples for _, text in sample.texts]
    folder = Path(config.out) / "tokenizer"
    with one_at_a_time(folder):  # every rank trains the same
        return train_tokenizer(texts, size.pieces, folder)
