"""The report: well-formed, whole without any other file or network, nothing given left out."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest

from taichu.config import load_size
from taichu.data.manifest import Sample
from taichu.data.prepared import PreparedData
from taichu.inference.sampling import Sampling
from taichu.report.floors import DEMO, FULL
from taichu.report.relevance import Relevance
from taichu.report.solid_view import swinging
from taichu.report.tables import MISSING, duration, flatten, missed, number, tables

MODALITIES = {
    "image": {"shape": [1, 16, 16, 3], "patch": [1, 8, 8]},
    "audio": {"shape": [16, 1, 32, 1], "patch": [8, 1, 16]},
    "video": {"shape": [4, 16, 16, 3], "patch": [2, 16, 16]},
    "shape3d": {"shape": [12, 12, 12, 1], "patch": [6, 6, 6]},
}
METRICS = {
    "zero_shot": {
        "image": {"accuracy": 0.912, "en": 0.9, "zh": 0.924, "baseline": 0.873, "chance": 0.1},
        "audio": {"accuracy": 0.501, "baseline": 0.97, "chance": 0.1, "n": 1234},
    },
    "retrieval": {
        "text->image": {"R@1": 0.313, "R@5": 0.717, "n": 750, "chance": 0.0123},
        "image->video": {"R@1": 0.611, "R@5": 0.832, "n": 432, "chance": 0.101},
        "audio+image->video": {"R@1": None, "R@5": None, "n": 0, "chance": None},
    },
    "captioning": {"image": {"exact": 0.456, "digit": 0.789, "colour": 0.654}},
    "generation": {"shape3d": {"agreement": 0.444, "ceiling": 0.888}, "text": {"valid": 0.97}},
    "codec": {"image": {"psnr_db": 21.34}, "shape3d": {"iou": float("nan")}},
    "seconds": {"data": 71.5, "training": 492},
    "tokens_per_second": 20345.6,
    "peak_memory_mb": 2345,
    "parameters": 1123456,
}
VOID = {"meta", "img", "br", "hr", "link", "input"}


@pytest.fixture(scope="module")
def model(cpu, tokenizer):
    from taichu.inference.pretrained import Taichu

    codecs = {name: {"levels": [4, 4], "width": 32, "depth": 1} for name in MODALITIES}
    small = {"width": 32, "depth": 1, "heads": 2, "key_value_heads": 1, "head_size": 16}
    config = load_size("nano", **small, hidden=32, modalities=MODALITIES, codecs=codecs)
    return Taichu(config, tokenizer)


@pytest.fixture(scope="module")
def data() -> PreparedData:
    """Eight samples: six of the digits with all modalities, and two without labels or text."""
    random = np.random.default_rng(5)
    image = {"colour": "red", "place": "centre"}
    video = {"colour": "blue", "direction": "up"}
    shape3d = {"thickness": "thin", "pose": "upright"}
    audio = {"kind": "human", "language": "en"}
    samples = []
    for i in range(8):
        labels = {"digit": i, "caption": "image", "image": image, "video": video}
        labels |= {"shape3d": shape3d, "audio": audio}
        texts = (("en", f"a red <{i}> & more"), ("zh", f"红色的{i}")) if i < 6 else ()
        media = {name: f"{name}/{i}" for name in MODALITIES}
        samples.append(Sample(i, str(i), "test", texts, media, labels if i < 6 else {}))
    grids = {
        name: random.uniform(-1, 1, (8, *settings["shape"])).astype(np.float16)
        for name, settings in MODALITIES.items()
    }
    rows = {name: np.arange(8) for name in MODALITIES}
    return PreparedData(samples, grids, rows, ["manifest.jsonl:9: lost.png: no such file"])


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rows = [{"step": i, "loss": 2 / i, "decoding.text": 1 / i, "seconds": i} for i in range(1, 60)]
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    rows.append({"step": 59, "validation": {"decoding.text": 0.5}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 60, "lo')
    return path


class Page(html.parser.HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)


HOW = Sampling(temperature=0.7, candidates=2), Sampling()


@pytest.fixture(scope="module")
def page(model, data, log, tmp_path_factory):
    from taichu.report import write_report

    path = tmp_path_factory.mktemp("report") / "out" / "report.html"
    logs = {"training": log, "codecs": log.with_name("missing.jsonl")}
    assert write_report(path, METRICS, model, data, logs, DEMO, *HOW, seed=3) == path
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


def test_refers_to_nothing_outside_itself(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "poster", "srcset", "data"):
            assert re.match(r"data:|#", attributes.get(name) or "#"), (tag, name)
        assert not (tag == "script" and "src" in attributes)
    assert "link" not in {tag for tag, _ in page.elements}
    assert not re.search(r"url\((?!#)|@import", " ".join(page.words + [str(page.elements)]))


def test_holds_every_figure_and_every_modality(page):
    text = " ".join(" ".join(page.words).split())
    for name, value in flatten(METRICS).items():
        assert f"{name} {number(value)}" in text, name
    for title in ("3D shape", "audio", "video", "image", "training", "lost.png", "8 min"):
        assert title in text.replace("\u00a0", " ")
    assert text.count("✓ floor") == 3 and text.count("✗ floor") == 3
    # captions come as they are, whatever signs they hold
    assert re.search(r"a red <\d> & more", text) and "红色的" in text


def test_pictures_and_sounds_can_be_read(page):
    seen = {}
    for _, attributes in page.elements:
        if attributes.get("src"):
            kind, content = re.fullmatch(r"data:(\S+);base64,(\S+)", attributes["src"]).groups()
            seen.setdefault(kind, base64.b64decode(content))
    from io import BytesIO

    from PIL import Image

    assert set(seen) == {"image/png", "image/webp", "audio/mpeg"}
    assert Image.open(BytesIO(seen["image/webp"])).is_animated
    assert len(seen["audio/mpeg"]) > 1000


def test_draws_curves_in_the_page_s_colours(page):
    curves = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(curves) == 2
    styles = " ".join(str(attributes) for _, attributes in page.elements)
    assert "currentColor" in styles and "#010203" not in styles
    ids = [attributes["id"] for tag, attributes in page.elements if tag == "clippath"]
    assert len(ids) == len(set(ids))


def test_metrics_and_data_may_lack_anything(model, data, tmp_path):
    from taichu.report import write_report

    nothing = np.full(8, -1)
    rows = {name: np.arange(8) if name == "image" else nothing for name in MODALITIES}
    samples = [Sample(i, str(i), "test", (), {"image": f"image/{i}"}) for i in range(8)]
    bare = PreparedData(samples, data.grids, rows, [])
    page = Page(
        write_report(tmp_path / "report.html", {}, model, bare, {}, DEMO, *HOW).read_text("utf-8")
    )
    assert " ".join(page.words).count("– not measured") == 5


def test_floors_of_the_right_figures():
    below, count = missed(METRICS, DEMO)
    assert count == 6  # image, audio; image->video; exact, digit; shape3d
    assert [line.split(":")[0] for line in below] == [
        "naming the digit, audio, accuracy",
        "captions from media, image, exact",
        "captions from media, image, digit",
    ]
    assert len(missed(METRICS, FULL)[0]) == 6
    retrieval = tables(METRICS, DEMO)[1]
    assert retrieval.columns == ["R@1", "R@5", "chance", "n"]
    assert [row.name for row in retrieval.rows][2] == "audio + image → video"
    assert [cell.floor for cell in (row.cells[0] for row in retrieval.rows)] == [
        "",
        "0.550",
        "0.550",
    ]
    assert retrieval.rows[2].bar is None and retrieval.rows[2].cells[0].text == MISSING


def test_an_earlier_run_stands_beside():
    earlier = {
        "about": "last week's",
        "zero_shot": {"image": {"accuracy": 0.5, "baseline": 0.873}, "video": {"accuracy": 0.7}},
        "generation": {"shape3d": {"agreement": 0.25}},
    }
    zero_shot, *_, generation, _ = tables(METRICS, DEMO, earlier)
    cells = {row.name: dict(zip(zero_shot.columns, row.cells)) for row in zero_shot.rows}
    assert set(cells) == {"image", "audio"}  # what is no more is not shown
    image = cells["image"]["accuracy"]
    assert (image.text, image.earlier, image.reached) == ("0.912", "0.500", True)
    assert cells["image"]["baseline"].earlier == "" and cells["image"]["en"].earlier == ""
    assert cells["audio"]["accuracy"].earlier == ""
    shapes = dict(zip(generation.columns, generation.rows[0].cells))
    assert shapes["agreement"].earlier == "0.250" and shapes["ceiling"].earlier == ""
    assert all(not c.earlier for t in tables(METRICS, DEMO) for row in t.rows for c in row.cells)


def test_figures_of_a_part_are_a_row_of_their_own():
    part = {"agreement": 0.3, "n": 60}
    entry = {"agreement": 0.6, "n": 120, "whole_caption": part}
    table = tables({"generation": {"audio": entry}}, DEMO)[3]
    assert table.columns == ["agreement", "n"]
    assert [row.name for row in table.rows] == ["audio", "audio · whole caption"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["0.600", "120"],
        ["0.300", "60"],
    ]
    assert [row.cells[0].floor for row in table.rows] == ["0.600", ""]


def test_numbers_are_written_alike():
    written = [number(v) for v in (0.5, 0, 12345, 21.34, 20345.6, 0.00012, None, float("inf"))]
    assert written == ["0.500", "0", "12,345", "21.3", "20,346", "1.2e-04", MISSING, MISSING]
    times = [duration(v).replace("\u00a0", " ") for v in (8.44, 192, 3725, None)]
    assert times == ["8.4 s", "3 min 12 s", "1 h 02 min", MISSING]


def test_relevance_is_by_caption_with_text_and_by_digit_between_media():
    image = {"colour": "red", "place": "centre"}
    video = {"colour": "blue", "direction": "up"}
    seven = Sample(1, "a", "test", (("en", "seven"),), {}, {"digit": 7, "caption": "image"})
    seven.labels.update(image=image, video=video)
    other = Sample(2, "b", "test", (), {}, {"digit": 7, "image": {**image, "colour": "blue"}})
    free = Sample(3, "c", "test", (("", "hello"),), {}, {"digit": "unlike ours"})
    relevance = Relevance([seven, other, free], np.array([0, 1, 2]))
    assert relevance.found(seven, "text", seven, "image")
    assert not relevance.found(seven, "text", other, "image")
    assert relevance.found(other, "image", seven, "video")
    assert relevance.found(free, "text", free, "image")
    assert not relevance.found(free, "text", seven, "audio")
    assert relevance.said(seven, "Seven in red at the centre.")
    assert not relevance.said(seven, "seven in blue at the centre")
    assert relevance.said(free, "hello") and not relevance.said(free, "hell")


def test_a_ball_is_drawn_round_lit_and_alone():
    places = np.indices((18, 18, 18)) - 8.5
    distance = np.clip((np.linalg.norm(places, axis=0) - 6) / 3, -1, 1)
    frames = swinging(distance[..., None])
    assert len(frames) == 10
    for frame in frames:
        solid = frame[..., 3] > 127
        radius = np.sqrt(solid.sum() / np.pi) / 64 * 2 * 0.56 * 18  # pixels to voxels
        assert abs(radius - 6) < 0.3
    lit = frames[0][..., :3].mean(-1)
    assert lit[22, 40] > lit[42, 24] + 15  # light comes from the right and above
    empty = swinging(np.ones((18, 18, 18, 1)))
    assert not any(frame[..., 3].any() for frame in empty)
