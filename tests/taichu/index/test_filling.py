"""From a manifest into an index with a real model: every text and file once, nothing lost."""

import dataclasses
import json

import numpy as np
import pytest

from taichu.errors import GenerationError, IndexFolderError
from taichu.index import Index
from taichu.index.filling import fill
from taichu.index.origin import Origin
from taichu.inference.retrieval import embed_query


@pytest.fixture
def manifest(tiny, tmp_path):
    """Six rows with pictures, half with a sound; the last picture is none."""
    random, rows = np.random.default_rng(3), []
    for number in range(6):
        row = {"id": f"r{number}", "split": "test" if number % 2 else "train"}
        row |= {"image": f"{number}.png", "text": {"en": [f"digit {number}", "same"], "zh": "same"}}
        if number % 2:
            row["audio"] = f"{number}.wav"
        for name in {"image", "audio"} & set(row):
            grid = random.uniform(-1, 1, tiny.adapters[name].geometry.shape)
            tiny.adapters[name].write(grid.astype(np.float32), tmp_path / row[name])
        rows.append(row)
    (tmp_path / "5.png").write_bytes(b"none")
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fill_all(index, model, manifest, **changed):
    given = {"split": "all", "modalities": None, "cache": manifest.parent / "cache"} | changed
    return fill(index, manifest.parent / "found", model, manifest, **given)


def test_every_content_is_found_by_itself(runtime, manifest):
    index = Index(runtime.config.embedding)
    filled = fill_all(index, runtime, manifest)
    assert index.counts == {"text": 10, "image": 5, "audio": 2}
    assert (filled.added, filled.known) == (17, 0)
    (line,) = filled.skipped
    assert line.startswith(f"{manifest}:6: ") and "5.png" in line
    index = Index.open(manifest.parent / "found")
    picture, sound = manifest.parent / "1.png", manifest.parent / "1.wav"
    for modality, given in (("image", picture), ("audio", sound), ("text", "digit 1")):
        query = runtime.embed(**{modality: str(given)})
        (found,) = index.search(query[None], 2, modality)
        assert (found[0].id, found[0].shown) == ("r1", str(given))
        # grids are kept in half precision
        assert found[0].cosine == pytest.approx(1, abs=1e-4) and found[1].cosine < 1 - 1e-4
    again = fill_all(index, runtime, manifest)
    assert (again.added, again.known) == (0, 17)


def test_a_part_of_it(runtime, manifest):
    index = Index(runtime.config.embedding)
    fill_all(index, runtime, manifest, split="train", modalities=["image"])
    assert index.counts == {"image": 3}
    with pytest.raises(IndexFolderError, match="no modality 'smell'; it has text, image"):
        fill_all(index, runtime, manifest, modalities=["smell"])


def test_what_was_done_before_an_interruption_is_kept(runtime, manifest, monkeypatch):
    monkeypatch.setattr("taichu.index.filling.CHUNK", 2)
    embed, calls = runtime.embed_many, []

    def interrupted(contents):
        calls.append(contents)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(contents)

    monkeypatch.setattr(runtime, "embed_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill_all(Index(runtime.config.embedding), runtime, manifest)
    index = Index.open(manifest.parent / "found")
    done = sum(index.counts.values())
    assert 0 < done < 17
    filled = fill_all(index, runtime, manifest)
    assert (filled.added, filled.known) == (17 - done, done)
    direct = Index(runtime.config.embedding)
    fill_all(direct, runtime, manifest)
    query = runtime.embed(text="digit 3")[None]
    assert [(f.id, f.shown) for f in index.search(query, 5, "text")[0]] == [
        (f.id, f.shown) for f in direct.search(query, 5, "text")[0]
    ]


def test_the_same_model_may_ask_in_any_format_and_no_other(tiny, runtime, monkeypatch):
    made = Origin.of(tiny, "model")
    made.check(Origin.of(runtime, "exported"), "found")
    embed = runtime.embed_many
    monkeypatch.setattr(runtime, "embed_many", lambda contents: -embed(contents))
    with pytest.raises(IndexFolderError, match="found: .* another model than x, .* other weights"):
        made.check(Origin.of(runtime, "x"), "found")
    monkeypatch.setattr(runtime, "embed_many", lambda contents: embed(contents)[:, :8])
    with pytest.raises(IndexFolderError, match="embeddings of 8, not 16"):
        made.check(Origin.of(runtime, "x"), "found")
    other = {**made.modalities, "audio": {**made.modalities["audio"], "rate": 8000}}
    with pytest.raises(IndexFolderError, match="other modalities, or settings of them"):
        made.check(dataclasses.replace(made, modalities=other), "found")


def test_a_saved_origin_is_the_same(runtime, exported, tmp_path):
    origin = Origin.of(runtime, str(exported))
    Index(runtime.config.embedding, origin).save(tmp_path)
    read = Index.open(tmp_path).origin
    assert (read.folder, read.modalities) == (str(exported), origin.modalities)
    np.testing.assert_array_equal(read.vectors, origin.vectors)


def test_weighted_sums(runtime, manifest):
    given = {"text": "digit 1", "image": str(manifest.parent / "1.png")}
    text, image = (runtime.embed(**{m: v}).astype(np.float64) for m, v in given.items())
    made = embed_query(runtime, given, {"image": 1, "text": -0.3})
    expected = image - 0.3 * text
    np.testing.assert_allclose(made, expected / np.linalg.norm(expected), atol=1e-6)
    together = embed_query(runtime, given)
    np.testing.assert_array_equal(together, runtime.embed(**given))
    with pytest.raises(GenerationError, match="weights must be of what is given: text, image"):
        embed_query(runtime, given, {"image": 1})
    with pytest.raises(GenerationError, match="has no direction"):
        embed_query(runtime, given, {"image": 0, "text": 0})
