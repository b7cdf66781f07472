"""A model learns which of two answers about a picture is preferred."""

import json
from pathlib import Path

import numpy as np
import pytest

from recipes import tune_preference
from taichu import Taichu
from taichu.data.conversations.preference_batches import PairsConfig
from taichu.data.conversations.prepared import PreferenceFile
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.errors import ConversationError
from taichu.inference.adapters import Adapters
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig
from tests.recipes.conftest import COLOURS


@pytest.fixture(scope="module")
def preferences(common) -> Path:
    """Of each of the eight pictures its colour is chosen, and another rejected."""
    path, colours = Path(common["manifest"]).with_name("preferences.jsonl"), list(COLOURS)
    rows = []
    for number in range(8):
        right, wrong = colours[number % 4], colours[(number + 1 + number // 4) % 4]
        row = {"prompt": "<image>colour?", "chosen": right, "rejected": wrong}
        rows.append(json.dumps({**row, "images": [f"{number}.png"]}) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


def settings(common, base, file, out, **train):
    files = (PreferenceFile(str(file)),)
    return tune_preference.Config(
        start=str(base),
        data=files,
        validation=files,
        validation_batches=4,
        out=str(out),
        cache=common["cache"],
        # the base has learned nothing: what reads and writes is trained too
        method={"name": "lora", "rank": 8, "modules_to_save": ["table", "patch_embedders.0"]},
        pairs=PairsConfig(rows=4, length=64),
        train=TrainConfig(**{"steps": 120, "rate": 1e-2, "log_every": 1} | train),
        device="CPU",
    )


def test_it_learns_what_is_preferred(common, base, preferences, tmp_path, capsys):
    adapter = tune_preference.main(settings(common, base, preferences, tmp_path))
    shown = capsys.readouterr().out
    assert "8 pairs of " in shown and "validation before: {'accuracy': 0.0, " in shown
    rows = read_log(tmp_path / "training/backbone/metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    # before the first step the policy is the reference
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[-1] < 0.5 * losses[0]
    last = rows[-1]["validation"]
    assert last["accuracy"] >= 0.9 and last["likelier"] >= 0.9
    assert last["margin"] == pytest.approx(last["chosen"] - last["rejected"], abs=2e-5)
    assert last["margin"] > 0.5

    model = Taichu.from_pretrained(base)
    Adapters(model).add(adapter, "preferring")
    assert model.template == ChatTemplate(DEFAULT)


def test_it_goes_on_under_the_same_reference(common, base, preferences, tmp_path, capsys):
    """The reference is the model as it was at first, not as the checkpoint has it."""
    config = settings(common, base, preferences, tmp_path, steps=12, checkpoint_every=6)
    training = tmp_path / "training" / "backbone"
    ends = []
    for _ in range(2):
        tune_preference.main(config)
        ends.append(read_log(training / "metrics.jsonl")[-1]["validation"]["margin"])
        (training / "checkpoints" / "step-00000012.safetensors").unlink()
    assert "goes on from step 6" in capsys.readouterr().out
    assert ends[1] == pytest.approx(ends[0], rel=1e-3) and ends[0] > 0.05


def test_conversations_are_refused(common, base, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"image": "no.png", "question": "?", "answer": "x"}\n')
    with pytest.raises(ConversationError, match="x.jsonl: holds no preferences: their rows have"):
        tune_preference.main(settings(common, base, path, tmp_path))
