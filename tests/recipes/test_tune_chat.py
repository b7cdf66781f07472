"""A model learns to answer questions about pictures, and says so in every way it is asked."""

import json
from pathlib import Path

import numpy as np
import pytest

from recipes import tune_chat
from taichu import Taichu
from taichu.command_line import main
from taichu.data.conversations.batches import ConversationsConfig
from taichu.data.conversations.prepared import ConversationFile
from taichu.inference.adapters import Adapters
from taichu.training.log import read_log
from taichu.training.trainer import TrainConfig


@pytest.fixture(scope="module")
def adapter(common, base, questions, tmp_path_factory) -> Path:
    files = (ConversationFile(str(questions)),)
    config = tune_chat.Config(
        start=str(base),
        data=files,
        validation=files,
        validation_batches=1,
        out=str(tmp_path_factory.mktemp("chat")),
        cache=common["cache"],
        # the base has learned nothing: what reads and writes is trained too
        method={"name": "lora", "rank": 8, "modules_to_save": ["table", "patch_embedders.0"]},
        conversations=ConversationsConfig(rows=4, length=128),
        train=TrainConfig(steps=150, rate=1e-2, log_every=1),
        device="CPU",
    )
    return tune_chat.main(config)


def test_it_learns_and_is_asked_in_every_way(base, adapter, questions, tmp_path, capsys):
    rows = read_log(adapter.parent / "training/backbone/metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])
    assert rows[-1]["validation"]["loss"] < 0.2 * losses[0]

    # with the adapter, which brings the template
    model = Taichu.from_pretrained(base)
    assert model.template is None
    Adapters(model).add(adapter, "chat")
    seen = {"type": "image", "image": str(questions.with_name("2.png"))}
    asked = [seen, {"type": "text", "text": "red, green, blue or white?"}]
    said = model.chat([{"role": "user", "content": asked}])

    # merged, and counted
    assert main(["merge", str(base), str(adapter), str(tmp_path / "merged")]) == 0
    merged = Taichu.from_pretrained(tmp_path / "merged")
    assert merged.template == model.template
    assert merged.chat([{"role": "user", "content": asked}]) == said
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "merged"), str(questions)]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["image"] == counted["all"] and counted["all"]["n"] == 16
    assert counted["all"]["right"] >= 0.9
