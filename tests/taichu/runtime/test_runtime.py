"""What is exported computes what MindSpore does: embeddings, codes, and what is made of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from taichu.errors import ExportError
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.runtime import Runtime

ROOT = Path(__file__).parents[3]

MODALITIES = ("text", "image", "audio", "video", "shape3d")


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings_are_equal(tiny, runtime, contents, modality):
    given = [{modality: contents[modality]}, {modality: contents[modality], "text": "a red"}]
    made, expected = runtime.embed_many(given), tiny.embed_many(given)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES[1:])
def test_codecs_are_equal(tiny, runtime, contents, modality):
    grids = np.stack([contents[modality], contents[modality][::-1]])
    codes = runtime.encode_grids(modality, grids)
    np.testing.assert_array_equal(codes, tiny.encode_grids(modality, grids))
    made, expected = runtime.decode_codes(modality, codes), tiny.decode_codes(modality, codes)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("into", MODALITIES)
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(guidance=2.0, temperature=1, candidates=3)]
)
def test_the_same_is_made_token_by_token(tiny, runtime, contents, into, sampling):
    """From conditions of several lengths, and from nothing."""
    given = [{m: contents[m]} for m in MODALITIES] + [{}, {"text": "a", "image": contents["image"]}]
    made, expected = (generate(model, into, given, sampling) for model in (runtime, tiny))
    for one, other in zip(made, expected):
        assert one.ids == other.ids
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)


def test_several_modalities_in_one_answer(tiny, runtime, contents):
    given, into = [{"image": contents["image"]}], ("text", "audio", "shape3d")
    made, expected = (generate(model, into, given, Sampling()) for model in (runtime, tiny))
    assert [one.ids for one in made[0]] == [one.ids for one in expected[0]]


def test_neither_mindspore_nor_torch_is_imported(exported):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('mindspore', 'torch', 'onnx')))\n"
        "from taichu.runtime import Runtime\n"
        "model = Runtime(sys.argv[1], 'cpu')\n"
        "made = model.generate(into='image', text='a red seven')\n"
        "print(model.embed(text='a').shape, made.grid.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.split("\n")[0] == "(16,) (1, 16, 16, 3)", done.stderr


def test_weights_are_stored_once(exported):
    size = (exported / "weights.safetensors").stat().st_size
    graphs = [path.stat().st_size for path in exported.glob("*.onnx")]
    assert len(graphs) == 3 + 2 * 4 and sum(graphs) < size


def test_an_exported_folder_serves_the_commands(exported, tiny, contents, capsys):
    from taichu.command_line import main

    assert main(["embed", str(exported), "--text", "a red seven"]) == 0
    out = capsys.readouterr()
    assert "device: CPU" in out.err
    (row,) = json.loads(out.out)
    expected = tiny.embed(text="a red seven")
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)


def test_what_is_wrong_is_named(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    with pytest.raises(ExportError, match="device 'tpu': must be one of auto, cpu, cuda"):
        Runtime(folder, "tpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ExportError, match="device 'cuda': the package onnxruntime-gpu is not"):
            Runtime(folder, "cuda")
        assert "onnxruntime-gpu is not installed" in Runtime(folder).provider.reason
    (folder / "embed.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="embed.onnx: ONNX Runtime cannot load it"):
        Runtime(folder, "cpu").embed(text="a")
    (folder / "embed.onnx").unlink()
    with pytest.raises(ExportError, match="embed.onnx: no such file"):
        Runtime(folder, "cpu").embed(text="a")
    (folder / "export.json").write_text('{"format": "mindir"}')
    with pytest.raises(ExportError, match="export.json: format must be 'onnx'"):
        Runtime(folder, "cpu")
