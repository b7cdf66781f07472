import librosa
import numpy as np
import pytest
import soundfile

from modality_adapters import create_adapter
from modality_adapters.log_mel import LogMel


@pytest.fixture
def wav(chirp, tmp_path):
    soundfile.write(tmp_path / "chirp.wav", chirp, 16_000)
    return tmp_path / "chirp.wav"


def difference(grid, other) -> float:
    """Root mean square in decibels (the grid's 2 units are 80)."""
    return float(np.sqrt(np.mean((np.float32(grid) - np.float32(other)) ** 2)) * 40)


@pytest.mark.parametrize(("window", "bands"), [(512, 32), (1024, 64), (400, 20)])
def test_log_mel_equals_librosa(window, bands, chirp):
    log_mel = LogMel(8_000, 320, window, bands)
    samples = chirp[::2]
    reference = librosa.feature.melspectrogram(
        y=samples, sr=8_000, n_fft=window, hop_length=320, n_mels=bands,
        htk=True, norm=None, center=True, pad_mode="constant",
    )  # fmt: skip
    frames = reference.shape[1]
    assert frames == 1 + len(samples) // 320
    power = log_mel.power(samples, frames)
    np.testing.assert_allclose(power, reference.T, rtol=1e-3, atol=1e-5 * reference.max())
    bank = librosa.filters.mel(sr=8_000, n_fft=window, n_mels=bands, htk=True, norm=None)
    np.testing.assert_allclose(log_mel.bank, bank, atol=1e-6)


def test_a_grid_is_decibels_below_the_loudest(adapters, chirp, tmp_path):
    samples = chirp[::2]
    soundfile.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    grid = adapters["audio"].read(tmp_path / "a.wav")
    assert grid.shape == (64, 1, 32, 1) and grid.dtype == np.float16
    power = librosa.feature.melspectrogram(
        y=samples, sr=8_000, n_fft=512, hop_length=320, n_mels=32,
        htk=True, norm=None, pad_mode="constant",
    ).T  # fmt: skip
    reference = 1 + librosa.power_to_db(power, ref=np.max, top_db=80) / 40
    assert np.abs(grid[: len(power), 0, :, 0] - reference).max() < 2e-3
    assert (grid[len(power) :] == -1).all() and grid.max() == 1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_files_of_every_kind_give_the_same_grid(suffix, adapters, chirp, wav, tmp_path):
    path = tmp_path / f"other{suffix}"
    soundfile.write(path, chirp, 16_000)
    assert difference(adapters["audio"].read(wav), adapters["audio"].read(path)) < 6


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_there_and_back(suffix, adapters, wav, tmp_path):
    grid = adapters["audio"].read(wav)
    path = adapters["audio"].write(grid, tmp_path / f"back{suffix}")
    info = soundfile.info(path)
    assert info.samplerate == 8_000 and abs(info.duration - 64 * 320 / 8_000) < 0.2
    again = np.float32(adapters["audio"].read(path))
    loud = grid > -0.5  # within 60 dB of the loudest, which is what is heard
    assert np.abs(again - grid)[loud].mean() * 40 < 5  # decibels
    assert np.corrcoef(again.ravel(), np.float32(grid).ravel())[0, 1] > 0.9


def test_written_wav_is_always_the_same(adapters, wav, tmp_path):
    grid = adapters["audio"].read(wav)
    one = adapters["audio"].write(grid, tmp_path / "1.wav").read_bytes()
    assert one == adapters["audio"].write(grid, tmp_path / "2.wav").read_bytes()


def test_silence(adapters, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(8_000), 8_000)
    grid = adapters["audio"].read(tmp_path / "quiet.wav")
    assert (grid == -1).all()
    path = adapters["audio"].write(grid, tmp_path / "again.wav")
    assert not soundfile.read(path)[0].any()


def test_loudness_channels_and_leading_silence_do_not_matter(adapters, chirp, wav, tmp_path):
    grid = adapters["audio"].read(wav)
    soundfile.write(tmp_path / "soft.wav", chirp * 0.05, 16_000, subtype="FLOAT")
    assert difference(grid, adapters["audio"].read(tmp_path / "soft.wav")) < 2
    soundfile.write(tmp_path / "stereo.wav", np.stack([chirp, chirp], 1), 16_000)
    assert np.array_equal(grid, adapters["audio"].read(tmp_path / "stereo.wav"))
    late = np.concatenate([np.zeros(16_000, np.float32), chirp])
    soundfile.write(tmp_path / "late.wav", late, 16_000)
    assert difference(grid, adapters["audio"].read(tmp_path / "late.wav")) < 5


def test_long_sounds_are_cut_and_short_ones_padded(adapters, random, tmp_path):
    soundfile.write(tmp_path / "long.wav", 0.1 * random.standard_normal(60 * 8_000), 8_000)
    assert (adapters["audio"].read(tmp_path / "long.wav") > -0.9).all()
    soundfile.write(tmp_path / "short.wav", 0.1 * random.standard_normal(50), 8_000)
    grid = adapters["audio"].read(tmp_path / "short.wav")
    assert grid.max() == 1 and (grid[1:] == -1).all()


def test_power_of_any_source_becomes_a_grid(adapters):
    grid = adapters["audio"].grid_from_power(np.full((100, 32), 7.0))
    assert grid.shape == (64, 1, 32, 1) and (grid == 1).all()
    assert (adapters["audio"].grid_from_power(np.zeros((5, 32))) == -1).all()


def test_other_settings_read_and_write(wav, tmp_path):
    settings = {"shape": [128, 1, 64, 1], "patch": [8, 1, 16], "sample_rate": 16_000, "hop": 200}
    adapter = create_adapter("audio", {**settings, "window": 1024})
    grid = adapter.read(wav)
    again = adapter.read(adapter.write(grid, tmp_path / "a.flac"))
    assert np.corrcoef(np.float32(again).ravel(), np.float32(grid).ravel())[0, 1] > 0.9


def test_the_sound_of_a_video(adapters, chirp, wav, tmp_path):
    av = pytest.importorskip("av")
    for suffix, codec in ((".mp4", "aac"), (".webm", "libopus")):
        path = tmp_path / f"clip{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=16_000, layout="mono")
            for start in range(0, len(chirp), 1024):
                block = chirp[None, start : start + 1024]
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.rate, frame.pts = 16_000, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        grid = np.float32(adapters["audio"].read(path))
        expected = np.float32(adapters["audio"].read(wav))
        assert np.corrcoef(grid.ravel(), expected.ravel())[0, 1] > 0.9, suffix
