"""How few parameters, in what batches: the choices of `taichu tune`."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from taichu import Taichu
from taichu.config import load_size
from taichu.errors import ConversationError, TuningError
from taichu.plan import tuning
from taichu.plan.tuning import Base, Lengths
from taichu.plan.tuning_data import look_at, settings_of
from taichu.tuning.lora import Lora
from taichu.tuning.tuned import tune

NEW = {"modality": "depth", "adapter": {"shape": [1, 8, 8, 1], "patch": [1, 4, 4]}, "codec": {}}
SOME = Lengths(samples=1000, tokens=80_000, learned=8_000, longest=150)
PLENTY = 10**12


@pytest.fixture
def base(tiny_folder) -> Base:
    return Base(tiny_folder)


def choose(base: Base, lengths: Lengths, free: int):
    return tuning.choose_batch(base, lengths, 1000, free, "float32", flash=True)


@pytest.mark.parametrize("rank", [2, 8])
def test_parameters_of_lora_are_those_that_it_brings(tiny_folder, base, rank):
    tuned = tune(Taichu.from_pretrained(tiny_folder).backbone, Lora(rank=rank))
    assert tuning.lora_parameters(base.config, rank) == sum(p.size for p in tuned.own.values())


def test_the_rank_holds_what_there_is_to_learn(base):
    of_one = tuning.lora_parameters(base.config, 1)
    for rank in tuning.RANKS:
        most = replace(SOME, learned=rank * of_one)
        assert tuning.choose_rank(base.config, most) == rank
        more = tuning.choose_rank(base.config, replace(most, learned=most.learned + 1))
        assert more == min(2 * rank, tuning.RANKS[-1])


def test_the_rate_falls_with_the_width():
    widths = {128: 4e-3, 4096: 2e-4}
    rates = {w: tuning.choose_rate(replace(load_size("nano"), width=w)) for w in (128, 724, 4096)}
    assert all(rates[width] == pytest.approx(rate) for width, rate in widths.items())
    # half way by powers: the geometric mean of both
    assert rates[724] == pytest.approx((4e-3 * 2e-4) ** 0.5, rel=0.03)


def test_rows_hold_an_update_and_give_way_to_memory(base):
    whole = choose(base, SOME, PLENTY)
    assert whole.length == 192 and not whole.recompute and whole.accumulate == 1
    assert whole.rows == round(tuning.SAMPLES * 80 / 192)
    shorter = choose(base, SOME, int((whole.bytes - 1) / tuning.TAKEN))
    assert shorter.rows == whole.rows // 2 and shorter.accumulate == 2
    assert shorter.bytes < whole.bytes
    # a model and rows at which activations are most of what is held
    wide = Base.__new__(Base)
    wide.__dict__.update(
        base.__dict__, config=replace(base.config, depth=48, width=512, hidden=2048)
    )
    long = replace(SOME, longest=4096)
    one = tuning._shape(1, 4096, 0.1, base.grids)
    plain, again = (
        tuning.step_bytes(tuning._workload(wide, one, recompute, "float32", True), 1000)
        for recompute in (False, True)
    )
    assert again < plain
    batch = choose(wide, long, int((again + plain) / 2 / tuning.TAKEN))
    assert batch.rows == 1 and batch.recompute
    with pytest.raises(TuningError, match="memory: a row of 4096 tokens takes"):
        choose(wide, long, int(again / 2))


def test_steps_are_three_epochs_within_bounds(base):
    batch = choose(base, SOME, PLENTY)
    tokens = 10 * tuning.STEPS[0] * batch.rows * batch.length
    steps = tuning.choose_steps(replace(SOME, tokens=tokens), batch)
    assert steps * 0.9 * batch.rows * batch.length == pytest.approx(3 * tokens, rel=1e-3) or (
        steps == tuning.STEPS[1]
    )
    assert tuning.choose_steps(replace(SOME, tokens=10), batch) == tuning.STEPS[0]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_data_choose_the_recipe(base, tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "d.png"), np.full((8, 8), 1000, np.uint16))
    cache = str(tmp_path / "cache")
    row = {"id": "1", "text": "a red seven", "image": "a.png"}

    found = look_at(write(tmp_path / "m.jsonl", [row]), base, NEW, cache)
    assert found.recipe == "tune_lora" and found.settings["mixture"]["groups"] == {"text-image": 1}
    content = len(base.vocabulary.encode("a red seven")) + base.grids["image"][0]
    assert found.lengths == Lengths(1, 2 * (content + 4), content, content + 5)

    depth = {"id": "2", "text": "a red seven", "depth": "d.png"}
    found = look_at(write(tmp_path / "d.jsonl", [row, depth]), base, NEW, cache)
    assert found.recipe == "tune_new_modality" and found.settings["modality"] == "depth"
    assert found.settings["adapter"] == NEW["adapter"]
    assert found.settings["mixture"]["groups"] == {"text-depth": 1}

    messages = [
        {"role": "user", "content": "<image>which?"},
        {"role": "assistant", "content": "a red seven"},
    ]
    chat = {"messages": messages, "images": ["b.png"]}
    found = look_at(write(tmp_path / "c.jsonl", [chat]), base, NEW, cache)
    assert found.recipe == "tune_chat" and found.packed_by == "conversations"
    assert found.lengths.samples == 1
    assert found.lengths.learned == len(base.vocabulary.encode("a red seven")) + 1

    pair = {"prompt": "<image>which?", "chosen": "a red seven", "rejected": "a", "image": "b.png"}
    found = look_at(write(tmp_path / "p.jsonl", [pair]), base, NEW, cache)
    assert found.recipe == "tune_preference" and found.packed_by == "pairs"
    answers = [len(base.vocabulary.encode(text)) + 1 for text in ("a red seven", "a")]
    assert found.lengths.samples == 2 and found.lengths.learned == sum(answers)
    assert found.rate < 1

    alone = {"id": "3", "image": "a.png"}
    with pytest.raises(TuningError, match="no row of the split train holds two of"):
        look_at(write(tmp_path / "n.jsonl", [alone]), base, NEW, cache)
    with pytest.raises(ConversationError, match="looks like none of the formats"):
        look_at(write(tmp_path / "x.jsonl", [{"a": 1}]), base, NEW, cache)


def test_a_new_modality_has_the_settings_of_a_size_like_the_model(base):
    nano = load_size("nano")
    made = settings_of("shape3d", base, NEW)
    assert made["adapter"] == nano.modalities["shape3d"]
    assert tuple(made["codec"]["levels"]) == nano.codecs["shape3d"].levels
