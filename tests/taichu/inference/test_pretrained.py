"""The model as a user holds it: its folder there and back, embeddings, and files that are made."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from modality_adapters import MediaError
from taichu import Sampling, Taichu
from taichu.errors import CheckpointError, GenerationError
from taichu.tokenizer import train_tokenizer

SUFFIXES = {"image": ".png", "audio": ".wav", "video": ".mp4", "shape3d": ".glb"}
FILES = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer.model",
    "model.safetensors",
    "codecs/image.safetensors",
    "codecs/shape3d.safetensors",
]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny model, saved; nobody changes it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    tiny.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def media(tiny, contents, tmp_path_factory) -> dict:
    """One text and one file a modality."""
    out = tmp_path_factory.mktemp("media")
    files = {name: out / f"one{suffix}" for name, suffix in SUFFIXES.items()}
    for name, path in files.items():
        tiny.adapters[name].write(contents[name], path)
    return {"text": contents["text"], **files}


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def read_error(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        Taichu.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_and_back(tiny, folder, media):
    back = Taichu.from_pretrained(folder)
    assert back.adapters == tiny.adapters  # the settings saved name the defaults too
    modalities = {name: adapter.settings() for name, adapter in tiny.adapters.items()}
    assert back.config == replace(tiny.config, modalities=modalities)
    assert back.vocabulary.tokenizer.content == tiny.vocabulary.tokenizer.content
    np.testing.assert_array_equal(back.embed(**media), tiny.embed(**media))
    sampling = Sampling(temperature=1.0)
    one, other = (
        model.generate("audio", sampling, text="a red seven", seed=3) for model in (tiny, back)
    )
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.grid, other.grid)


def test_a_folder_holds_just_these_files(folder):
    codecs = [f"codecs/{name}.safetensors" for name in SUFFIXES]
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    assert sorted(found) == sorted(FILES[:4] + codecs)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert read_error(copy) == f"{copy / name}: no such file"


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert name in read_error(copy)


def change_json(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("config.json", {"model_type": "bert"}, "config.json: model_type is not 'taichu'"),
        ("config.json", {"widht": 32}, "did you mean 'width'"),
        ("config.json", {"width": "wide"}, "width: must be int, not 'wide'"),
        ("config.json", {"heads": 3, "key_value_heads": 2}, "must divide"),
        ("config.json", {"hidden": 40}, "model.safetensors: tensor 'blocks.0.feed_forward"),
        ("config.json", {"depth": 3}, "model.safetensors: tensor 'blocks.2.*is missing"),
        ("config.json", {"depth": 1}, "tensor 'blocks.1.*not part of this model"),
        ("preprocessor_config.json", {"modalities": {"smell": {}}}, "differ|smell"),
        ("preprocessor_config.json", {"modalities": 3}, "modalities: must"),
    ],
)
def test_settings_that_do_not_fit_are_named(copy, file, change, message):
    change_json(copy / file, lambda content: content.update(change))
    with pytest.raises(CheckpointError, match=message):
        Taichu.from_pretrained(copy)


def test_an_adapter_setting_that_does_not_fit_its_codec_is_named(copy):
    def coarser(content):
        content["modalities"]["audio"]["hop"] = 160

    change_json(copy / "preprocessor_config.json", coarser)
    assert f"{copy / 'codecs' / 'audio.safetensors'}: was made with" in read_error(copy)


def test_a_codec_of_another_modality_is_named(copy):
    shutil.copy(copy / "codecs/audio.safetensors", copy / "codecs/image.safetensors")
    assert f"{copy / 'codecs' / 'image.safetensors'}: was made with" in read_error(copy)


def test_another_tokenizer_is_named(copy, tmp_path):
    other = train_tokenizer(["another text"] * 5, 270, tmp_path / "tokenizer")
    (copy / "tokenizer.model").write_bytes(other.content)
    assert "model.safetensors: tensor 'table.own' has shape" in read_error(copy)


def test_embed_one_a_list_and_a_group(tiny, media):
    one = tiny.embed(image=media["image"])
    assert one.shape == (16,) and one.dtype == np.float32
    many = tiny.embed(image=[media["image"]] * 3)
    assert many.shape == (3, 16)
    np.testing.assert_allclose(many, np.stack([one] * 3), atol=1e-5)
    group = tiny.embed(image=media["image"], text=media["text"])
    assert group.shape == (16,)
    groups = tiny.embed(image=[media["image"]] * 2, text=[media["text"], "蓝色的三"])
    np.testing.assert_allclose(groups[0], group, atol=1e-5)
    assert np.abs(groups[0] - groups[1]).max() > 1e-3 and np.abs(group - one).max() > 1e-3


@pytest.mark.parametrize("name", ["text", *SUFFIXES])
def test_embeddings_have_unit_length(tiny, media, name):
    assert np.linalg.norm(tiny.embed(**{name: media[name]})) == pytest.approx(1, abs=1e-5)


def test_a_packed_embedding_equals_one_by_one(tiny, contents):
    """Short and long, alone and in groups, more than one batch holds, an odd number."""
    random = np.random.default_rng(1)
    many = []
    for number in range(31):
        names = random.permutation(list(contents))[: random.integers(1, 6)]
        content = {str(name): contents[name] for name in names}
        many.append({**content, "text": f"{number} " + "七" * int(random.integers(1, 70))})
    many += [{name: content} for name, content in contents.items()] + [{"text": ""}]
    packed = tiny.embed_many(many)
    assert len(packed) == 37
    np.testing.assert_allclose(np.linalg.norm(packed, axis=1), 1, atol=1e-5)
    alone = np.concatenate([tiny.embed_many([content]) for content in many])
    np.testing.assert_allclose(packed, alone, atol=1e-5)


def test_inputs_that_do_not_fit_are_refused(tiny, media, tmp_path):
    for inputs in ({"text": ["a", "b"], "image": [media["image"]]}, {"text": ["a"], "image": "x"}):
        with pytest.raises(GenerationError, match="lists of equal length, or single values"):
            tiny.embed(**inputs)
    with pytest.raises(GenerationError, match="no modality 'smell'"):
        tiny.embed(smell="rose")
    with pytest.raises(GenerationError, match="nothing"):
        tiny.embed()
    with pytest.raises(GenerationError, match="empty"):
        tiny.embed(text=[])
    with pytest.raises(GenerationError, match="empty"):
        tiny.generate("image", text=[])
    with pytest.raises(MediaError, match="missing.png"):
        tiny.embed(image=tmp_path / "missing.png")


@pytest.mark.parametrize("name", SUFFIXES)
def test_what_is_made_is_saved_as_a_file_that_is_read(tiny, contents, tmp_path, name):
    made = tiny.generate(name, text="a red seven", seed=1)
    if name == "shape3d":  # what an untrained codec rebuilds has no surface, so save a ball
        made.grid = contents["shape3d"]
    path = made.save(tmp_path / f"made{SUFFIXES[name]}")
    adapter = tiny.adapters[name]
    read = adapter.read(path).astype(np.float32)
    assert path.is_file() and read.shape == adapter.geometry.shape
    if name == "image":  # the others are compressed, or seen from another side
        np.testing.assert_allclose(read, made.grid, atol=1.1 / 127.5)


def test_text_is_saved_and_lists_give_lists(tiny, media, tmp_path):
    one, two = tiny.generate("text", Sampling(pieces=4), image=[media["image"]] * 2)
    assert one.ids == two.ids and one.text
    path = one.save(tmp_path / "made.txt")
    assert path.read_text(encoding="utf-8") == one.text


def test_grids_there_and_back_through_codes(tiny, contents):
    for name in SUFFIXES:
        grids = np.stack([contents[name], -contents[name]])
        codes = tiny.encode_grids(name, grids)
        assert codes.shape == (2, tiny.adapters[name].geometry.tokens)
        assert codes.min() >= 0 and codes.max() < len(tiny.vocabulary.codes(name))
        rebuilt = tiny.decode_codes(name, codes)
        assert rebuilt.shape == grids.shape and np.abs(rebuilt).max() <= 1
