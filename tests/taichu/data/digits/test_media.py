"""Solids and speech: watertight meshes, MFCC there and back, voices."""

import wave

import numpy as np
import pytest

from taichu.data.digits import solids, sources, speech
from taichu.data.digits.render import centre_digit, picture


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(3)


def test_solids_are_watertight_and_as_deep_and_leaning_as_named(random):
    handwritings, _ = sources.optdigits()
    for handwriting in handwritings[:20]:
        for thickness in solids.DEPTH:
            upright, leaning = (
                solids.solid(handwriting, thickness, pose, np.random.default_rng(3))
                for pose in ("upright", "leaning")
            )
            assert upright.is_watertight and leaning.is_watertight
            assert upright.volume == pytest.approx(leaning.volume, rel=1e-3) and upright.volume > 0
            assert len(upright.faces) < 3000
            top = upright.vertices[:, 1].argmax()  # goes away from the viewer
            assert leaning.vertices[top, 2] < upright.vertices[top, 2] - 0.1
        # a right prism: its volume is the drawn area times the depth, for thick and thin alike
        thin = solids.solid(handwriting, "thin", "upright", random).volume
        thick = solids.solid(handwriting, "thick", "upright", random).volume
        assert thick / thin == pytest.approx(solids.DEPTH["thick"] / solids.DEPTH["thin"], rel=1e-3)


def test_waves_have_the_mfcc_they_were_made_from(tmp_path):
    recordings, _ = sources.spoken_digits()
    errors = []
    for index in range(0, 3000, 150):
        target = recordings[index]
        path = tmp_path / "digit.wav"
        samples = speech.wave_of_mfcc(target, np.random.default_rng(index))
        speech.write_wave(samples, path)
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
            written = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        assert len(written) == (len(target) - 1) * speech.HOP
        errors.append(np.abs(speech.mfcc(written) - target).mean())
    assert np.mean(errors) < 1.5  # MFCC stray from their mean over time by 18 on average
    assert max(errors) < 5


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_voice_speaks_and_fits(language):
    espeak = speech.Espeak(seed=1)
    text = {"en": "seven in purple at the bottom right", "zh": "七，紫色，在右下角"}[language]
    accents = speech.ACCENTS[language]
    for index, speaker in enumerate(speech.TRAIN_SPEAKERS + speech.TEST_SPEAKERS):
        samples = espeak.say(text, f"{accents[index % len(accents)]}+{speaker}", 165, 50)
        assert 0.5 * speech.RATE < len(samples) <= speech.LONGEST * speech.RATE
        assert np.abs(samples).max() > 0.05


def test_unknown_voice_is_refused():
    with pytest.raises(ValueError, match="no voice 'xx'"):
        speech.Espeak(seed=1).say("seven", "xx", 175, 50)


def test_a_centred_digit_is_the_same_wherever_and_whatever_colour_it_was():
    handwritings, _ = sources.mnist()
    for handwriting in handwritings[::500]:
        cuts = [
            centre_digit(picture(handwriting, colour, place)[None] / np.float32(127.5) - 1)
            for colour, place in (("white", "top left"), ("yellow", "bottom right"))
        ]
        assert np.abs(cuts[0] - cuts[1]).mean() < 0.02
