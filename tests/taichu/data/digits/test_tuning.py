"""What tuning is shown on: rows that read, splits that hold, depths that are those of the mesh."""

import json
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
import trimesh

from taichu.data.digits import captions, questions, sources
from taichu.data.digits.build import Counts, build_digits, is_held_out
from taichu.data.digits.depth_map import DISTANCE, FOCAL, SIDE, depth_map
from taichu.data.digits.tuning import build_tuning
from taichu.errors import ManifestError

SMALL = Counts(image=12, video=10, shape3d=10, human=10, names=4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "out"
    return build_digits(out, processes=1, progress=False, train=SMALL, test=SMALL).parent


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    copy = shutil.copytree(digits, tmp_path_factory.mktemp("tuning") / "out")
    build_tuning(copy, processes=1, progress=False)
    return copy


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_same_bytes_again_and_what_is_done_is_left_alone(folder, digits, tmp_path):
    again = shutil.copytree(digits, tmp_path / "again")
    build_tuning(again, processes=2, progress=False)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(
        path.read_bytes() == (again / path.relative_to(folder)).read_bytes() for path in files
    )
    before = {path: path.stat().st_mtime_ns for path in files}
    build_tuning(folder, processes=1)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    with pytest.raises(FileExistsError, match="other settings"):
        build_tuning(folder, seed=1)
    with pytest.raises(ManifestError, match="no digits folder"):
        build_tuning(tmp_path)


def test_negatives_are_other_handwritings_inverted(folder):
    images = sources.optdigits()[0]
    seen = Counter()
    for row in rows(folder / "negatives.jsonl"):
        labels, about = row["labels"], row["labels"]["image"]
        held = is_held_out("image", labels["digit"], about["colour"], about["place"])
        assert held == (row["split"] == "test")
        pixels = cv2.imread(str(folder / row["image"])).astype(float)
        darkness = (255 - pixels).max(2)
        assert darkness.min() == 0  # white paper
        ink = images[int(about["source"].partition(":")[2])]
        assert abs(darkness.mean() / 255 - ink.mean() * 28**2 / 32**2) < 0.06
        for texts in row["text"].values():
            assert captions.parse(texts[0]) == captions.attributes(labels, "image")
        seen[about["source"]] += 1
    assert set(seen.values()) == {1}


def test_depth_is_that_of_the_first_surface_on_the_way(folder):
    row = rows(folder / "depth.jsonl")[4]
    mesh = trimesh.load(folder / f"train/shape3d/{row['depth'][-9:-4]}.glb", force="mesh")
    seen = cv2.imread(str(folder / row["depth"]), cv2.IMREAD_UNCHANGED)
    assert seen.dtype == np.uint16 and seen.shape == (SIDE, SIDE)
    middle = (SIDE - 1) / 2
    pixels = np.argwhere(seen > 0)[::7]
    ways = np.stack(
        [(pixels[:, 1] - middle) / FOCAL, (middle - pixels[:, 0]) / FOCAL, -np.ones(len(pixels))], 1
    )
    first = np.array([nearest_hit(mesh.triangles, way) for way in ways])
    found = np.isfinite(first)
    assert found.mean() > 0.9  # the others lie on the outline
    error = np.abs(seen[tuple(pixels.T)] / 1000 - first)[found]
    assert np.median(error) < 0.01 and np.quantile(error, 0.9) < 0.05


def nearest_hit(triangles: np.ndarray, way: np.ndarray) -> float:
    """How far along z a ray from the camera first meets a triangle (n, 3, 3): Cramer's rule for
    origin + t way = a + u (b - a) + v (c - a)."""
    a, b, c = np.moveaxis(triangles, 1, 0)
    columns = np.stack([np.broadcast_to(-way, a.shape), b - a, c - a], 2)
    flat = np.abs(np.linalg.det(columns)) < 1e-12
    columns[flat] = np.eye(3)
    t, u, v = np.linalg.solve(columns, ([0.0, 0.0, DISTANCE] - a)[:, :, None])[:, :, 0].T
    hit = ~flat & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    return t[hit].min(initial=np.inf)


def test_a_nearer_square_hides_a_farther_one():
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    near, far = (np.c_[size * square, np.full(4, z)] for size, z in ((0.4, 0.5), (1.0, -0.5)))
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    mesh = trimesh.Trimesh(np.r_[near, far], np.r_[faces, faces + 4], process=False)
    seen = depth_map(mesh)
    assert seen[SIDE // 2, SIDE // 2] == 1500 and seen[SIDE // 2, SIDE // 4] == 2500
    assert seen[2, 2] == 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_is_what_the_labels_say(folder, split):
    words = {w: d for of in captions.DIGITS.values() for d, w in enumerate(of)}
    about = {}
    for row in rows(folder / "manifest.jsonl"):
        for medium in ("image", "video", "shape3d", "audio"):
            if medium in row:
                about.setdefault(row[medium], captions.known(row["labels"], medium))
    media = set()
    for row in rows(folder / f"conversations_{split}.jsonl"):
        medium, path = next((m, row[m]) for m in questions.DIGIT if m in row)
        media.add(path)
        values = about[path]
        said = row["messages"]
        assert said[0]["content"].startswith(f"<{medium}>") and len(said) >= 4
        answers = {message["content"] for message in said[1::2]}
        assert values["digit"] in {words[a] for a in answers if a in words}
        for name in values.keys() - {"digit"}:
            assert answers & {values[name], captions.VALUES[name][values[name]]}
        if len(values) == 1:
            assert answers & {("even", "odd")[values["digit"] % 2], "双单"[values["digit"] % 2]}
    assert media == {path for path in about if path.startswith(split)}


def test_what_is_rejected_is_false_in_one_point(folder):
    for row in rows(folder / "preferences_train.jsonl"):
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        right, wrong = captions.parse(chosen["content"]), captions.parse(rejected["content"])
        assert right.keys() == wrong.keys()
        assert sum(right[name] != wrong[name] for name in right) == 1
