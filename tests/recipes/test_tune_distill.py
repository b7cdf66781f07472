"""A student of fewer blocks comes nearer to what its teacher predicts."""

import numpy as np
import pytest
from safetensors import numpy

from recipes import codecs, pretrain, tune_distill
from taichu import Taichu
from taichu.data.batches import MixtureConfig
from taichu.errors import ConfigError
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig

GROUPS = {"text-image": 1.0, "text-audio": 1.0}
MIXTURE = MixtureConfig(groups=GROUPS, rows=4, length=64)


@pytest.fixture(scope="module")
def teacher(common, tmp_path_factory):
    """A model of three blocks, trained for a few seconds."""
    out = tmp_path_factory.mktemp("teacher")
    size = out / "size.yaml"
    with open(common["model"], encoding="utf-8") as small:
        size.write_text(
            small.read().replace("depth: 1\nheads", "depth: 3\nheads"), encoding="utf-8"
        )
    common = {**common, "model": str(size)}
    once = TrainConfig(steps=1)
    trained = codecs.main(codecs.Config(out=str(out / "codecs"), train=once, **common))
    rest = {"mixture": MIXTURE, "train": TrainConfig(steps=60, rate=1e-2), "validation_batches": 1}
    return pretrain.main(pretrain.Config(codecs=str(trained), out=str(out), **rest, **common))


def settings(common, teacher, out, steps, **student):
    rest = {name: value for name, value in common.items() if name != "model"}
    train = TrainConfig(steps=steps, rate=1e-2, log_every=1)
    return tune_distill.Config(
        start=str(teacher), out=str(out), student=student, mixture=MIXTURE, train=train, **rest
    )


def test_the_student_comes_nearer(common, teacher, tmp_path, capsys):
    folder = tune_distill.main(settings(common, teacher, tmp_path, 40, depth=2, hidden=48))
    shown = capsys.readouterr().out
    of = Taichu.from_pretrained(teacher)
    student = Taichu.from_pretrained(folder)
    assert (student.config.depth, student.config.hidden, of.config.depth) == (2, 48, 3)
    for model, start in ((of, "teacher: "), (student, "student: ")):
        assert f"{start}{sum(p.size for p in model.backbone.get_parameters()):,} param" in shown
    rows = read_log(tmp_path / "training/backbone/metrics.jsonl")
    for part in ("distillation.decoding", "distillation.embedding"):
        far = [row[part] for row in rows if "loss" in row]
        assert len(far) == 40 and np.mean(far[-10:]) < 0.7 * np.mean(far[:10]), part
    (checkpoint,) = (tmp_path / "training/backbone/checkpoints").glob("*.safetensors")
    held = numpy.load_file(checkpoint)
    assert held and not any("teacher" in name for name in held)
    assert student.embed(text="red at the top").shape == (16,)


def test_a_wrong_student_is_named(common, teacher, tmp_path):
    with pytest.raises(ConfigError, match="student.depth=9 must be from 1 to the teacher's 3"):
        tune_distill.main(settings(common, teacher, tmp_path, 1, depth=9))
