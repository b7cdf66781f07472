"""Tune a model to prefer one answer to another: direct preference optimisation.

    taichu train tune_preference start=runs/demo/model data='[{path: my/preferences.jsonl}]'

The data are pairs of answers to one prompt, in TRL's, LLaMA-Factory's or ms-swift's form, media
among the words. The reference model is the one that is tuned, as it is before the first step: how
likely it finds every answer is computed once, and it needs no memory of its own. What is trained is
printed, and saved as an adapter in PEFT's layout with the chat template.
"""

from dataclasses import dataclass
from pathlib import Path

from ascend.start import start_training
from taichu.data.conversations.preference_batches import PairsConfig, PreferenceBatches
from taichu.data.conversations.prepared import PreferenceFile, prepare_preferences
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.inference.pretrained import Taichu
from taichu.training.preference import (
    PARTS,
    PreferenceConfig,
    PreferenceObjective,
    compare,
    log_probabilities,
)
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig, Trainer
from taichu.tuning.methods import create_method
from taichu.tuning.peft_folder import save_adapter
from taichu.tuning.tuned import tune


@dataclass(frozen=True)
class Config:
    start: str
    data: tuple[PreferenceFile, ...]
    out: str
    cache: str
    method: dict
    pairs: PairsConfig
    train: TrainConfig
    preference: PreferenceConfig = PreferenceConfig()
    validation: tuple[PreferenceFile, ...] = ()
    validation_batches: int = 64
    profile: ProfileConfig | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Tune; returns the adapter's folder."""
    start_training(config.device, config.precision, config.seed)
    method = create_method(config.method, config.train.steps)
    model, out = Taichu.from_pretrained(config.start), Path(config.out)
    template = model.template or ChatTemplate(DEFAULT)

    def read(files: tuple[PreferenceFile, ...]) -> PreferenceBatches:
        data = prepare_preferences(files, model.config.modalities, config.cache)
        how = template, config.pairs, config.seed
        batches = PreferenceBatches(data, model.vocabulary, model.adapters, *how)
        print(*data.formats, *data.skipped, *batches.skipped, batches.summary, sep="\n", flush=True)
        return batches

    batches = read(config.data)
    unseen = read(config.validation) if config.validation else None
    tuned = tune(model.backbone, method)
    print(tuned, flush=True)
    objective = PreferenceObjective(model.backbone, model.vocabulary, config.preference)

    def validate() -> dict:
        log_p = log_probabilities(trainer.evaluate, unseen, held_out)
        return compare(log_p, unseen.reference[held_out], config.preference.beta)

    trainer = Trainer(
        objective,
        batches,
        list(PARTS),
        config.train,
        out / "training" / "backbone",
        validate if unseen else None,
        "preference",
        Path(config.cache) / "graphs",
        config.profile,
        method.optimizer,
    )
    # what was tuned so far is loaded by `run`: until then the policy is the reference
    print("preference: how likely the reference finds the answers ...", flush=True)
    wanted = batches.first(config.train.steps * config.train.accumulate)
    batches.reference[wanted] = log_probabilities(trainer.evaluate, batches, wanted)
    if unseen:
        held_out = unseen.first(config.validation_batches)
        unseen.reference[held_out] = log_probabilities(trainer.evaluate, unseen, held_out)
        print(f"preference: validation before: {validate()}", flush=True)
    trainer.run()
    return save_adapter(tuned, out / "adapter", config.start, template)
