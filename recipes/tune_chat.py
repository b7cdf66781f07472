"""Tune a model to answer: conversations of several turns, their media among the words.

    taichu train tune_chat start=runs/demo/model data='[{path: my/conversations.jsonl}]'

The data are of any format that `taichu data check` reads; only answers are learned. What is trained
is printed, and saved as an adapter in PEFT's layout with the chat template; `taichu merge` makes a
model of it, which `taichu serve` and `model.chat` then talk with.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascend.ranks import mean_over_ranks
from ascend.start import start_training
from taichu.data.conversations.batches import ConversationBatches, ConversationsConfig
from taichu.data.conversations.prepared import ConversationFile, prepare_conversations
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.inference.pretrained import Taichu
from taichu.training.objectives import Objective
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig, Trainer
from taichu.tuning.methods import create_method
from taichu.tuning.peft_folder import save_adapter
from taichu.tuning.tuned import tune


@dataclass(frozen=True)
class Config:
    start: str
    data: tuple[ConversationFile, ...]
    out: str
    cache: str
    method: dict
    conversations: ConversationsConfig
    train: TrainConfig
    validation: tuple[ConversationFile, ...] = ()
    validation_batches: int = 8
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

    def read(files: tuple[ConversationFile, ...]) -> ConversationBatches:
        data = prepare_conversations(files, model.config.modalities, config.cache)
        how = template, config.conversations, config.seed
        batches = ConversationBatches(data, model.vocabulary, model.adapters, *how)
        print(*data.formats, *data.skipped, *batches.skipped, batches.summary, sep="\n", flush=True)
        return batches

    batches = read(config.data)
    unseen = read(config.validation) if config.validation else None
    tuned = tune(model.backbone, method)
    print(tuned, flush=True)
    objective = Objective(model.backbone, model.vocabulary, alignment_weight=0)

    def validate() -> dict:
        losses = [
            trainer.evaluate(*unseen(k).arrays())[0].asnumpy()
            for k in range(config.validation_batches)
        ]
        return {"loss": round(float(mean_over_ranks(np.float32(np.mean(losses)))), 5)}

    trainer = Trainer(
        objective,
        batches,
        objective.part_names,
        config.train,
        out / "training" / "backbone",
        validate if unseen else None,
        "chat",
        Path(config.cache) / "graphs",
        config.profile,
        method.optimizer,
    )
    trainer.run()
    return save_adapter(tuned, out / "adapter", config.start, template)
