"""Towers compute what `transformers` does with the published encoders, number by number."""

import numpy as np
import pytest
import torch

from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.tower_settings import TowerChoice
from tests.taichu.convert.towers import ENCODERS, publish_encoder, run_tower


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Gives a published encoder by its name; nobody changes it."""
    made = {}

    def of(name: str):
        if name not in made:
            made[name] = publish_encoder(tmp_path_factory.mktemp(name), name)
        return made[name]

    return of


@pytest.fixture
def converted(published, encoders, cpu, tmp_path):
    """Gives (the published encoder, the model that has it), of what `TowerChoice` takes."""

    def of(name: str, **choices):
        encoder = encoders(name)
        modality = "audio" if encoder.sound else "image"
        choice = TowerChoice(str(encoder.folder), **({"pooled": 1} | choices))
        out = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        convert_from_hf(published("qwen2").folder, out, towers={modality: choice})
        return encoder, Taichu.from_pretrained(out)

    return of


def draw_inputs(model: Taichu, grids: int):
    """Random grids in a batch's form, and the same as the published encoder reads them."""
    (name, adapter), (tower,) = *model.adapters.items(), model.config.towers.values()
    shape = adapter.geometry.shape
    values = np.random.default_rng(grids).uniform(-1, 1, (grids, *shape)).astype(np.float32)
    patches = adapter.geometry.patchify(values).reshape(-1, adapter.geometry.patch_size)
    read = (values - np.float32(tower.mean)) / np.float32(tower.deviation)
    if name == "audio":
        return patches, read[:, :, 0, :, 0].transpose(0, 2, 1)
    return patches, read[:, 0].transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states(name, converted):
    encoder, model = converted(name)
    hidden = -2 if name.startswith("clip") else None
    for grids in (1, 3):
        patches, read = draw_inputs(model, grids)
        if name == "siglip-uneven":  # the encoder drops what is behind the last whole patch
            read = np.pad(read, [(0, 0), (0, 0), (0, 4), (0, 4)], constant_values=9)
        expected = encoder.read(read, hidden)
        made, _ = run_tower(model, patches)
        assert expected.std() > 0.5
        np.testing.assert_allclose(made, expected.reshape(made.shape), atol=1e-4)


def test_the_layers_that_are_run_may_be_chosen(converted):
    for name, layers, hidden in (
        ("clip", 3, -1),
        ("clip", 1, 1),
        ("siglip", 2, 2),
        ("whisper", 1, 1),
    ):
        encoder, model = converted(name, layers=layers)
        patches, read = draw_inputs(model, 2)
        expected = encoder.read(read, hidden)
        made, _ = run_tower(model, patches)
        np.testing.assert_allclose(made, expected.reshape(made.shape), atol=1e-4)


def test_outputs_of_whisper_are_pooled(converted):
    encoder, model = converted("whisper", pooled=5)
    patches, read = draw_inputs(model, 2)
    expected = encoder.read(read).reshape(2, 8, 5, -1).mean(2)
    made, _ = run_tower(model, patches)
    np.testing.assert_allclose(made, expected.reshape(made.shape), atol=1e-4)


@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_projector(projector, converted):
    _, model = converted("siglip", projector=projector)
    patches, _ = draw_inputs(model, 2)
    hidden, made = run_tower(model, patches)
    held = model.backbone.patch_embedders[0].projector.parameters_and_names()
    weights = {name: torch.tensor(parameter.asnumpy()) for name, parameter in held}
    expected = torch.nn.functional.linear(
        torch.tensor(hidden), weights["first.weight"], weights["first.bias"]
    )
    if projector == "mlp":
        gelu = torch.nn.functional.gelu(expected)
        expected = torch.nn.functional.linear(
            gelu, weights["second.weight"], weights["second.bias"]
        )
    assert len(weights) == (4 if projector == "mlp" else 2)
    np.testing.assert_allclose(made, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_training(frozen, converted):
    """A frozen tower stays as it is, bit by bit; the loss falls with either."""
    import mindspore as ms

    from ascend.operators import AdamW
    from taichu.training.objectives import Objective
    from taichu.training.pipeline import make_training_step

    _, model = converted("clip", frozen=frozen)
    tower = model.backbone.patch_embedders[0].tower
    before = {name: p.asnumpy().copy() for name, p in tower.parameters_and_names()}
    objective = Objective(model.backbone, model.vocabulary)
    optimizer = AdamW(objective.trainable_params(), 1e-3, 0.9, 0.98, weight_decay=0.05, clip=1.0)
    step = make_training_step(objective, optimizer, 1, False)
    arrays = tuple(map(ms.Tensor, make_batch(model).arrays()))
    losses = [float(step(*arrays)[0].asnumpy()) for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]
    changed = [not np.array_equal(p.asnumpy(), before[n]) for n, p in tower.parameters_and_names()]
    trained = {p.name for p in optimizer.parameters}
    if frozen:
        assert not any(changed)
        assert not any(".tower." in name for name in trained)
    else:  # the key's bias adds the same to all scores of a query
        kept = {n for c, n in zip(changed, before) if not c}
        assert all(name.endswith("key.bias") for name in kept)
        assert sum(".tower." in name for name in trained) == len(before)


def make_batch(model: Taichu):
    """Two images and their captions, aligned and decoded."""
    from taichu.data.layout import GROUPED, Segment, Span
    from taichu.data.packing import BatchShape, Layout, pack

    (_, adapter), random, layouts = *model.adapters.items(), np.random.default_rng(1), []
    for number, text in enumerate(("a red seven", "蓝色的三")):
        seen = model.observe({"image": random.uniform(-1, 1, adapter.geometry.shape)})
        said = model.observe({"text": text})
        codes = (
            random.integers(0, 8, adapter.geometry.tokens) + model.vocabulary.codes("image").start
        )
        made = Span("image", ids=codes, coordinates=adapter.geometry.coordinates())
        segments = Segment(seen, said, GROUPED, 1), Segment(said, (made,), GROUPED, 1)
        layouts.append(Layout(segments, 0, number, aligned=True))
    geometry = adapter.geometry
    patches = (("image", 2 * geometry.tokens, geometry.patch_size),)
    return pack(layouts, BatchShape(4, 64, 128, 2, patches), model.vocabulary)[0]


def test_a_folder_holds_its_towers(converted, tmp_path):
    from safetensors.numpy import load_file

    encoder, model = converted("whisper", frozen=False, projector="linear", pooled=4)
    model.save_pretrained(tmp_path / "saved")
    again = Taichu.from_pretrained(tmp_path / "saved")
    assert again.config.towers == model.config.towers
    assert again.adapters == model.adapters
    tower = load_file(tmp_path / "saved" / "towers" / "audio.safetensors")
    assert not any(".tower." in n for n in load_file(tmp_path / "saved" / "model.safetensors"))
    held = dict(model.backbone.patch_embedders[0].tower.parameters_and_names())
    assert {n: v.shape for n, v in tower.items()} == {n: tuple(p.shape) for n, p in held.items()}
    grid = np.random.default_rng(2).uniform(-0.7, 0.7, (80, 1, 80, 1)).astype(np.float16)
    vectors = [m.embed_many([{"audio": grid}, {"text": "a"}]) for m in (model, again)]
    np.testing.assert_array_equal(*vectors)
    assert np.isfinite(vectors[0]).all()


def test_counts_and_plans_know_towers(converted):
    from taichu.model.backbone import count_parameters

    for name in ("clip", "siglip", "whisper"):
        _, model = converted(name, pooled=2)
        sizes = model.config, model.vocabulary.size, list(model.grids.values())
        held = sum(p.size for p in model.backbone.get_parameters())
        assert count_parameters(*sizes) == held


@pytest.mark.parametrize(
    "name, choices",
    [
        ("clip", {}),
        ("siglip", {"projector": "linear", "layers": 2}),
        ("whisper", {"pooled": 4}),
    ],
)
def test_exported_towers(name, choices, converted, tmp_path):
    from taichu.export.onnx_folder import export_onnx
    from taichu.runtime import Runtime

    _, model = converted(name, **choices)
    model.save_pretrained(tmp_path / "saved")
    runtime = Runtime(export_onnx(tmp_path / "saved", tmp_path / "exported"), "cpu", threads=1)
    (modality, adapter), random = *model.adapters.items(), np.random.default_rng(3)
    shape = adapter.geometry.shape
    grids = [random.uniform(-0.9, 0.9, shape).astype(np.float32) for _ in range(3)]
    contents = [{modality: grid} for grid in grids] + [{"text": "a red seven", modality: grids[0]}]
    made, expected = runtime.embed_many(contents), model.embed_many(contents)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(made, expected, atol=2e-5)


def test_towers_have_no_mindir(converted, tmp_path):
    from taichu.errors import ExportError
    from taichu.export.mindir_folder import export_mindir

    _, model = converted("clip")
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ExportError, match="a model with towers has no MINDIR; export it to onnx"):
        export_mindir(tmp_path / "saved", tmp_path / "exported")


def test_the_command(published, encoders, tmp_path, capsys):
    """A folder that the command wrote is shown, embeds files and says something of them."""
    import cv2
    import soundfile

    from taichu.command_line import main

    source, out, random = published("qwen2").folder, tmp_path / "out", np.random.default_rng(0)
    arguments = ["convert", "--from-hf", str(source), str(out), "--modalities", "video"]
    arguments += ["--tower", f"image={encoders('siglip').folder},projector=linear,frozen=false"]
    arguments += ["--tower", f"audio={encoders('whisper').folder},pooled=8"]
    assert main(arguments) == 0
    assert main(["info", str(out)]) == 0
    shown = capsys.readouterr().out
    counts = {}
    for name in ("siglip", "whisper"):
        named = encoders(name).model.named_parameters()
        counts[name] = sum(p.numel() for n, p in named if not n.startswith("head."))
    end = "3 layers of width 48, trained; projector linear"
    assert f"siglip, {counts['siglip']:,} parameters, {end}" in shown
    end = "2 layers of width 48, frozen; projector mlp"
    assert f"whisper, {counts['whisper']:,} parameters, {end}" in shown
    cv2.imwrite(str(tmp_path / "a.png"), random.integers(0, 256, (50, 40, 3), np.uint8))
    soundfile.write(tmp_path / "a.wav", 0.1 * random.standard_normal(16_000), 16_000)
    model = Taichu.from_pretrained(out)
    assert list(model.config.modalities) == ["image", "audio", "video"]
    files = {"image": str(tmp_path / "a.png"), "audio": str(tmp_path / "a.wav")}
    assert np.linalg.norm(model.embed(**files)) == pytest.approx(1, abs=1e-5)
    from taichu.inference.sampling import Sampling

    assert isinstance(model.generate("text", Sampling(pieces=4), **files).text, str)
    assert main(["convert", "--to-hf", str(out), str(tmp_path / "back")]) == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).is_file()


def test_no_more_grids_pass_through_a_tower_than_there_are(converted):
    _, model = converted("siglip")
    (_, adapter), random, seen = *model.adapters.items(), np.random.default_rng(4), []
    embed = model.embed_batch
    model.embed_batch = lambda batch, count: seen.append(batch) or embed(batch, count)
    shape, tokens = adapter.geometry.shape, adapter.geometry.tokens
    images = [{"image": random.uniform(-1, 1, shape).astype(np.float32)} for _ in range(5)]
    together = model.embed_many([*images, {"text": "a"}])
    alone = np.concatenate([model.embed_many([image]) for image in images])
    np.testing.assert_allclose(together[:5], alone, atol=1e-5)
    model.embed_many([{"text": "a"}])
    # a single content is filled up with itself
    assert [len(batch.patches[0]) // tokens for batch in seen] == [8, 2, 2, 2, 2, 2, 1]
