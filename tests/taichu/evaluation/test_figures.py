"""The figures of evaluation against their definitions, written out as loops."""

from types import SimpleNamespace

import numpy as np
import pytest

from taichu.evaluation.captioning import captioning, guess, score
from taichu.evaluation.codec import measure, use_of_codes
from taichu.evaluation.generation import generation
from taichu.evaluation.judge import Judge
from taichu.evaluation.retrieval import equal, recall, together
from taichu.evaluation.zero_shot import prompts
from taichu.inference.sampling import Sampling


def test_recall_counts_first_and_first_five():
    random = np.random.default_rng(3)
    similarity = random.standard_normal((40, 30))
    relevant = random.random((40, 30)) < 0.1
    first = five = queries = 0
    for row, right in zip(similarity, relevant):
        if not right.any():
            continue
        queries += 1
        order = sorted(range(30), key=lambda j: -row[j])
        first += right[order[0]]
        five += any(right[j] for j in order[:5])
    figures = recall(similarity, relevant)
    assert figures["n"] == queries
    assert figures["R@1"] == pytest.approx(first / queries)
    assert figures["R@5"] == pytest.approx(five / queries)
    assert figures["chance"] == pytest.approx(relevant[relevant.any(1)].mean())


def test_recall_without_any_right_item_says_so():
    assert recall(np.ones((3, 4)), np.zeros((3, 4), bool))["n"] == 0


def test_equal_compares_every_pair():
    left, right = [("a",), ("b",)], [("b",), ("c",), ("a",)]
    assert equal(left, right).tolist() == [[False, False, True], [True, False, False]]


def test_together_finds_pairs_of_any_group():
    groups = [(("text",), ("image",)), (("text",), ("audio", "image"))]
    assert together("audio", "image", groups)
    assert not together("image", "video", groups)


def test_score_reads_captions_of_any_template():
    wanted = [{"digit": 7, "colour": "red", "place": "top left"}, {"digit": 3}]
    figures = score(["左上角的红色七", "this is nothing"], wanted)
    assert figures["exact"] == 0.5
    assert figures["digit"] == 0.5
    assert figures["colour"] == figures["place"] == 1.0  # of the one item that has them
    assert figures["valid"] == 0.5
    wrong = score(["a red seven at the top right"], wanted[:1])
    assert wrong["exact"] == 0 and wrong["digit"] == wrong["colour"] == 1 and wrong["place"] == 0


def test_captions_stand_beside_the_judge_of_the_same_items(monkeypatch):
    digits = np.arange(20) % 10
    labels = [
        {"digit": int(d), "caption": "image", "image": {"colour": "red", "place": "centre"}}
        for d in digits
    ]
    data = SimpleNamespace(
        samples=[SimpleNamespace(labels=of, media={"image": i}) for i, of in enumerate(labels)],
        grids={"image": digits[:, None, None, None, None].astype(np.float32)},
        rows={"image": np.arange(20)},
        having=lambda modalities: np.arange(20),
    )
    # every second caption names another colour; the judge takes 7 for an 8
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    monkeypatch.setattr(
        "taichu.evaluation.captioning.generate",
        lambda model, into, contents, sampling: [
            SimpleNamespace(text=f"a {('red', 'blue')[i % 2]} {words[d]} at the centre")
            for i, d in enumerate(digits)
        ],
    )
    judge = {"image": lambda grids: np.where(grids.ravel() == 7, 8, grids.ravel())}
    model = SimpleNamespace(adapters=["image"])
    figures = captioning(model, data, judge, 20, Sampling())["image"]
    assert figures["baseline"] == pytest.approx(0.9)
    assert (figures["digit"], figures["colour"], figures["exact"]) == (1.0, 0.5, 0.5)
    assert figures["n"] == 20


def test_codec_measures():
    random = np.random.default_rng(0)
    real = random.uniform(-1, 1, (3, 2, 4, 4, 1))
    rebuilt = real + 0.1
    assert measure("image", real, rebuilt, 80)["psnr_db"] == pytest.approx(10 * np.log10(4 / 0.01))
    assert measure("audio", real, rebuilt, 80)["log_mel_l2_db"] == pytest.approx(4.0)
    solid = np.ones((1, 4, 4, 4, 1))
    solid[0, :2] = -1
    half = np.ones((1, 4, 4, 4, 1))
    half[0, 1:3] = -1
    assert measure("shape3d", solid, half, 80)["iou"] == pytest.approx(1 / 3)
    assert measure("shape3d", solid, solid, 80)["iou"] == 1.0


@pytest.mark.parametrize("centred", [False, True])
def test_the_judge_learns_a_plain_difference(centred):
    random = np.random.default_rng(0)
    digits = random.integers(0, 2, 60)
    grids = np.full((60, 1, 32, 32, 3), -1.0, np.float32)
    for grid, digit in zip(grids, digits):  # a bar lying or standing, at a place
        y, x = random.integers(6, 14, 2)
        tall, wide = (14, 3) if digit else (3, 14)
        grid[0, y : y + tall, x : x + wide] = 1
    judge = Judge(grids[:40], digits[:40], centred)
    assert (judge(grids[40:]) == digits[40:]).mean() >= (0.9 if centred else 0.6)


def test_prompts_are_held_out_captions_of_the_digit():
    from taichu.data.digits.captions import TRAIN_TEMPLATES, fill, parse

    made = prompts("video", "zh", 4)
    assert all(parse(text)["digit"] == 4 for text in made)
    trained = {
        fill({"digit": 4, "colour": c, "direction": d}, "zh", template)
        for template in TRAIN_TEMPLATES["zh"]["video"]
        for c in ("red", "blue")
        for d in ("left", "up")
    }
    assert not trained & set(made)


def test_guess_multiplies_the_choices_of_every_detail():
    assert guess({"digit": 3}) == pytest.approx(0.1)
    assert guess({"digit": 3, "colour": "red", "place": "centre"}) == pytest.approx(1 / 350)


def test_perplexity_and_usage_of_codes():
    codes = np.array([[0, 0, 1, 1], [3, 3, 3, 3]])  # shares 1/4, 1/4, 0, 1/2
    figures = use_of_codes(codes, 4)
    assert figures["usage"] == 0.75
    entropy = 2 * 0.25 * np.log(4) + 0.5 * np.log(2)
    assert figures["perplexity"] == pytest.approx(np.exp(entropy))


class Mirror:
    """A model whose codes are the grids themselves, and whose media show the wanted digit."""

    def encode_grids(self, modality, grids):
        return grids

    def decode_codes(self, modality, codes):
        return codes


def test_agreement_ceiling_and_real_are_judged_alike(monkeypatch):
    digits = np.arange(20) % 10
    grids = np.broadcast_to(digits[:, None, None, None, None], (20, 1, 2, 2, 3)).astype(np.float32)
    samples = [
        SimpleNamespace(
            labels={"digit": int(d), "caption": "image"},
            captions=lambda number, d=d: [("en", str(d))],
            media={"image": i},
        )
        for i, d in enumerate(digits)
    ]
    data = SimpleNamespace(
        samples=samples,
        grids={"image": grids},
        rows={"image": np.arange(20)},
        having=lambda modalities: np.arange(20),
    )
    # of every caption the digit, but of 7 an 8
    shown = [np.full((1, 2, 2, 3), 8 if d == 7 else d, np.float32) for d in digits]
    monkeypatch.setattr(
        "taichu.evaluation.generation.generate",
        lambda model, into, contents, sampling: [
            SimpleNamespace(grid=shown[int(content["text"])]) for content in contents
        ],
    )
    read = {"image": lambda grids: np.asarray(grids)[:, 0, 0, 0, 0]}
    never = {"image": lambda grids: np.full(len(grids), -1)}
    figures = generation(Mirror(), data, read, never, 20, Sampling())["image"]
    assert figures["agreement"] == pytest.approx(0.9)
    assert figures["ceiling"] == figures["real"] == 1.0
    assert figures["n"] == 20
    assert figures["centred"] == {"agreement": 0.0, "ceiling": 0.0, "real": 0.0}
