"""What is wrong with a published encoder is said in one line that names the file and the key."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from taichu.command_line import main
from taichu.command_line.convert import read_towers
from taichu.config import TowerConfig
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.tower_settings import TowerChoice, tower_settings
from taichu.convert.tower_tensors import tower_tensors
from taichu.errors import CheckpointError, ConfigError
from tests.taichu.convert.towers import publish_encoder

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name in ("clip", "siglip", "whisper"):
        made[name] = tmp_path_factory.mktemp(name)
        publish_encoder(made[name], name)
    return made


@pytest.fixture
def folder(sources, tmp_path):
    """Gives a copy of a published encoder's folder."""

    def of(name: str) -> Path:
        return shutil.copytree(sources[name], tmp_path / name)

    return of


def refused(folder: Path, **choices) -> str:
    """The error of reading a folder."""
    with pytest.raises(CheckpointError) as caught:
        choice = TowerChoice(str(folder), **({"pooled": 1} | choices))
        tower_tensors(folder, tower_settings(choice))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path: Path, **keys):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | keys))


def test_without_changes_all_are_read(folder):
    for name, count in (("clip", 37), ("siglip", 53), ("whisper", 37)):
        choice = TowerChoice(str(folder(name)), pooled=1)
        assert len(tower_tensors(Path(choice.folder), tower_settings(choice))) == count


@pytest.mark.parametrize("kind", ["bert", "llama", None, ["clip"]], ids=str)
def test_model_type(kind, folder):
    source = folder("clip")
    change(source / "config.json", model_type=kind)
    said = refused(source)
    assert f"config.json: model_type is {kind!r}" in said
    assert "clip_vision_model" in said and "whisper" in said


@pytest.mark.parametrize(
    "name, keys, said",
    [
        ("clip", {"vision_config": None}, "vision_config is missing"),
        ("clip", {"vision_config": [1]}, "vision_config is [1]; it must be dict"),
        ("whisper", {"activation_function": "relu"}, "activation_function is 'relu'; known are"),
        ("whisper", {"encoder_layers": 0}, "encoder_layers is 0; it must be at least 1"),
        ("whisper", {"d_model": "48"}, "d_model is '48'; it must be int"),
        ("whisper", {"scale_embedding": True}, "scale_embedding is true"),
        ("whisper", {"max_source_positions": 41}, "shape [40, 48], config.json wants [41, 48]"),
        ("whisper", {"encoder_layers": 3}, "tensor 'model.encoder.layers.2.self_attn_layer_norm"),
        ("whisper", {"encoder_layers": 1}, "layers.1.fc1.bias': it is not part of whisper"),
    ],
)
def test_settings(name, keys, said, folder):
    source = folder(name)
    change(source / "config.json", **keys)
    assert said in refused(source)


@pytest.mark.parametrize(
    "name, keys, said",
    [
        ("clip", {"num_channels": 1}, "vision_config.num_channels is 1; only 3 is known"),
        ("clip", {"attention_bias": True}, "vision_config.attention_bias is not known"),
        ("clip", {"patch_size": 7}, "vision_config.patch_size is 7; it must divide image_size=32"),
        ("siglip", {"patch_size": 64}, "vision_config.patch_size is 64"),
        ("siglip", {"hidden_size": 96}, "config.json wants [16, 96]"),
        ("siglip", {"layer_norm_eps": 0}, "layer_norm_eps is 0; it must be a number above 0"),
    ],
)
def test_inner_settings(name, keys, said, folder):
    source = folder(name)
    inner = json.loads((source / "config.json").read_text())["vision_config"]
    change(source / "config.json", vision_config=inner | keys)
    assert said in refused(source)


@pytest.mark.parametrize(
    "name, keys, said",
    [
        ("clip", {"resample": 2}, "resample is 2; only 3 is known"),
        ("clip", {"crop_size": 64}, "crop_size is 64; only 32 is known"),
        ("clip", {"image_std": [0.2, 0, 0.2]}, "image_std is [0.2, 0, 0.2]; it must be above 0"),
        ("siglip", {"image_mean": [0.5]}, "image_mean is [0.5]; it must be 3 numbers"),
        ("siglip", {"do_center_crop": True}, "do_center_crop is True"),
        ("whisper", {"n_fft": 512}, "n_fft is 512; it must be 400"),
        ("whisper", {"feature_size": 128}, "feature_size is 128; it must be 80"),
    ],
)
def test_preprocessing(name, keys, said, folder):
    source = folder(name)
    change(source / "preprocessor_config.json", **keys)
    assert f"preprocessor_config.json: {said}" in refused(source)


def test_choices_that_do_not_fit(folder):
    sound, sight = folder("whisper"), folder("clip")
    assert "encoder_layers is 2; 3 layers cannot be run" in refused(sound, layers=3)
    assert "num_hidden_layers is 3; 0 layers" in refused(sight, layers=0)
    assert "max_source_positions is 40, which 7 does not divide" in refused(sound, pooled=7)


def test_tensors(folder):
    source = folder("siglip")
    path = source / "model.safetensors"
    tensors, name = load_file(path), "vision_model.encoder.layers.1.mlp.fc1.weight"

    def rewritten(**changed) -> str:
        kept = {n: v for n, v in (tensors | changed).items() if v is not None}
        save_file(kept, path, {"format": "pt"})
        return refused(source)

    assert rewritten(**{name: None}) == f"{source}: tensor {name!r} is missing"
    turned = np.ascontiguousarray(tensors[name].T)
    said = f"{path}: tensor {name!r} has shape [48, 80], config.json wants [80, 48]"
    assert rewritten(**{name: turned}) == said
    for extra in ("vision_model.encoder.layers.3.mlp.fc1.bias", "vision_model.adapter.weight"):
        said = f"{path}: tensor {extra!r}: it is not part of siglip"
        assert rewritten(**{extra: tensors[name]}) == said
    whole = np.zeros(tensors[name].shape, np.int32)
    assert f"tensor {name!r} is I32; it must be F32" in rewritten(**{name: whole})


def test_old_numbers_of_positions_are_no_tensors_of_the_model(folder):
    source = folder("clip")
    path = source / "model.safetensors"
    ids = {"vision_model.embeddings.position_ids": np.arange(17)[None]}
    save_file(load_file(path) | ids, path, {"format": "pt"})
    choice = TowerChoice(str(source))
    assert len(tower_tensors(source, tower_settings(choice))) == 37


def test_truncated_file(folder):
    path = folder("clip") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path}: damaged" in refused(path.parent)


def test_index_that_points_outside(folder):
    source = folder("whisper")
    (source / "model.safetensors").rename(source.parent / "outside.safetensors")
    placed = {"model.encoder.conv1.bias": "../outside.safetensors"}
    change(source / INDEX, weight_map=placed)
    said = refused(source)
    assert f"{source / INDEX}: 'model.encoder.conv1.bias' is placed outside the folder" in said


def test_pickles_are_not_read(folder):
    source = folder("clip")
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert "pytorch_model.bin is a pickle, which is never read" in refused(source)


def test_a_tower_of_another_modality(published, sources, tmp_path):
    choice = TowerChoice(str(sources["whisper"]), pooled=1)
    with pytest.raises(ConfigError, match="--tower image: a tower of whisper is of audio"):
        convert_from_hf(published("qwen2").folder, tmp_path / "out", towers={"image": choice})
    assert not (tmp_path / "out").exists()


def test_the_tower_of_a_model_folder(published, sources, cpu, tmp_path):
    from taichu import Taichu

    choice, out = TowerChoice(str(sources["clip"])), tmp_path / "out"
    convert_from_hf(published("qwen2").folder, out, towers={"image": choice})
    path = out / "towers" / "image.safetensors"
    tensors = load_file(path)
    for changed, said in (
        ({"place": None}, "tensor 'place' is missing"),
        ({"other": tensors["place"]}, "tensor 'other' is not part of this model"),
        ({"place": tensors["place"][1:]}, r"tensor 'place' has shape \[16, 48\], .* \[17, 48\]"),
    ):
        save_file({n: v for n, v in (tensors | changed).items() if v is not None}, path)
        with pytest.raises(CheckpointError, match=f"{path}: {said}"):
            Taichu.from_pretrained(out)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{path}: damaged"):
        Taichu.from_pretrained(out)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path}: no such file"):
        Taichu.from_pretrained(out)


@pytest.mark.parametrize(
    "texts, said",
    [
        (["image"], "it is written modality=folder"),
        (["=folder"], "it is written modality=folder"),
        (["image=a", "image=b"], "image has one already"),
        (["image=a,frozn=true"], "frozn: unknown key; did you mean 'frozen'"),
        (["image=a,layers=x"], "layers: must be int, not 'x'"),
    ],
)
def test_the_command_line(texts, said):
    with pytest.raises(ConfigError, match=said):
        read_towers(texts)


def test_what_the_command_line_says_is_what_is_chosen():
    read = read_towers(["image=a/b,projector=linear,frozen=false,layers=3", "audio=c,pooled=5"])
    image = TowerChoice("a/b", projector="linear", frozen=False, layers=3)
    assert read == {"image": image, "audio": TowerChoice("c", pooled=5)}


def test_towers_are_of_one_direction(capsys):
    assert main(["convert", "--to-hf", "a", "b", "--tower", "image=c"]) != 0
    assert "--tower are of --from-hf" in capsys.readouterr().err


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"kind": "clipp"}, "kind='clipp' must be clip, siglip, whisper; did you mean 'clip'"),
        ({"heads": 5}, "heads=5 must divide width=48"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"mean": (0.0, 0.0)}, "mean must hold 1 value, or 3"),
        ({"deviation": (0.0,)}, "deviation must be more than 0"),
    ],
)
def test_towers_of_a_config(keys, said):
    settings = {"kind": "clip", "width": 48, "depth": 2, "heads": 3, "hidden": 80, "channels": 3}
    settings |= {"activation": "gelu", "norm_epsilon": 1e-5}
    with pytest.raises(ConfigError, match=said):
        TowerConfig(**settings | keys)
    TowerConfig(**settings).check_grid(4, 192)
    with pytest.raises(ConfigError, match="clip wants patches of a multiple of 3 values, not of 8"):
        TowerConfig(**settings).check_grid(4, 8)
