"""Teach a smaller student what a trained model predicts.

    taichu train tune_distill start=runs/demo/model manifest=my/manifest.jsonl student.depth=2

The student is the teacher with fields of its config changed, and starts with what of the teacher
fits it. It learns from the data as in pretrain, and from the teacher beside.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ascend.start import start_training
from recipes import pretrain
from taichu.data.batches import MixtureConfig
from taichu.data.prepared import prepare
from taichu.inference.pretrained import Taichu
from taichu.inference.student import blocks_taken, make_student
from taichu.training.distillation import DistillationConfig, DistillationObjective
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig


@dataclass(frozen=True)
class Config:
    start: str
    manifest: str
    out: str
    cache: str
    student: dict
    mixture: MixtureConfig
    train: TrainConfig
    distillation: DistillationConfig = DistillationConfig()
    profile: ProfileConfig | None = None
    validation_batches: int = 8
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


def main(config: Config) -> Path:
    """Teach; returns the student's folder."""
    start_training(config.device, config.precision, config.seed)

    teacher = Taichu.from_pretrained(config.start)
    student = make_student(teacher, config.student)
    sizes = [sum(p.size for p in m.backbone.get_parameters()) for m in (teacher, student)]
    taken = blocks_taken(student.config.depth, teacher.config.depth)
    print(f"teacher: {sizes[0]:,} parameters, in {teacher.config.depth} blocks")
    print(f"student: {sizes[1]:,} parameters, from blocks {', '.join(map(str, taken))}", flush=True)

    data = prepare(config.manifest, "train", student.config.modalities, config.cache)
    of = {"teacher": teacher.backbone, "config": config.distillation}
    pretrain.train(student, data, config, make_objective=partial(DistillationObjective, **of))
    student.save_pretrained(Path(config.out) / "model")
    return Path(config.out) / "model"
