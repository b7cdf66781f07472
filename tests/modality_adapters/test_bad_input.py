"""Every bad input: one MediaError that names the file and the reason, before memory is used."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import trimesh

from modality_adapters import MediaError, create_adapter

SUFFIXES = {
    "image": [".png", ".jpg", ".webp", ".bmp", ".tif"],
    "audio": [".wav", ".flac", ".ogg", ".mp3"],
    "video": [".mp4", ".avi", ".webm", ".gif"],
    "shape3d": [".obj", ".stl", ".ply", ".glb", ".off"],
    "depth": [".png", ".tif"],
    "text": [".txt"],
}
EVERY = [(name, suffix) for name, suffixes in SUFFIXES.items() for suffix in suffixes]
GRIDS = [case for case in EVERY if case[0] != "text"]


@pytest.fixture(scope="module")
def good(adapters, tmp_path_factory):
    """A good file of each modality and suffix."""
    folder = tmp_path_factory.mktemp("good")
    random = np.random.default_rng(0)
    files = {}
    for name, suffix in GRIDS:
        shape = adapters[name].geometry.shape
        grid = random.uniform(-1, 1, shape)
        if name == "shape3d":
            grid = (np.linalg.norm(np.indices(shape[:3]) - 8.5, axis=0) - 6)[..., None]
        files[name, suffix] = adapters[name].write(grid, folder / f"a{suffix}")
    return files


def refusal(adapters, name: str, path: Path, memory_mb: float = 8) -> str:
    """The reason for which a file is refused."""
    adapter = adapters.get(name) or create_adapter(name, {})
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(MediaError):
        adapter.read(path)  # libraries load at the first error: what they take is not counted
    tracemalloc.start()
    try:
        with pytest.raises(MediaError) as caught:
            adapter.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < memory_mb * 2**20
    assert process.memory_info().rss - before < (memory_mb + 100) * 2**20  # libraries and all
    assert caught.value.path == str(path) and "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(("name", "suffix"), EVERY)
def test_missing_empty_folder(name, suffix, adapters, tmp_path):
    path = tmp_path / f"a{suffix}"
    assert refusal(adapters, name, path) == "no such file"
    path.touch()
    assert refusal(adapters, name, path) == "is empty"
    path.unlink()
    path.mkdir()
    assert refusal(adapters, name, path) == "is a folder, not a file"


@pytest.mark.parametrize("name", SUFFIXES)
def test_unknown_suffix(name, adapters, tmp_path):
    path = tmp_path / "a.docx"
    path.write_text("hello")
    assert "'.docx'; supported are" in refusal(adapters, name, path)
    assert "no suffix" in refusal(adapters, name, tmp_path / "a")


@pytest.mark.parametrize(("name", "suffix"), GRIDS)
def test_another_kind_of_content(name, suffix, adapters, tmp_path):
    path = tmp_path / f"a{suffix}"
    for content in (b"just a line of text\n" * 50, bytes(1000), b"\xff" * 1000, b"\x89PNG"):
        path.write_bytes(content)
        assert refusal(adapters, name, path)


@pytest.mark.parametrize(("name", "suffix"), GRIDS)
def test_truncated(name, suffix, good, adapters, tmp_path):
    if suffix in (".obj", ".mp3"):
        pytest.skip("a list of lines or frames: any beginning of it may be a whole file")
    data = good[name, suffix].read_bytes()
    path = tmp_path / f"a{suffix}"
    for part in (0.97, 0.7, 0.3, 0.02):
        path.write_bytes(data[: int(part * len(data))])
        assert refusal(adapters, name, path), part


@pytest.mark.parametrize(("name", "suffix"), GRIDS)
def test_damaged_files_raise_nothing_else(name, suffix, good, adapters, random, tmp_path):
    data = bytearray(good[name, suffix].read_bytes())
    path = tmp_path / f"a{suffix}"
    for _ in range(6):
        broken = data.copy()
        for place in random.integers(0, len(data), 12):
            broken[place] = random.integers(256)
        path.write_bytes(broken)
        try:
            grid = adapters[name].read(path)
        except MediaError as error:
            assert error.reason
        else:
            assert grid.shape == adapters[name].geometry.shape and np.isfinite(grid).all()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    parts = chunk(b"IHDR", size), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_huge_images(adapters, tmp_path):
    path = tmp_path / "huge.png"
    for side in (60_000, 10_000):
        path.write_bytes(png_header(side, side))
        assert "pixels" in refusal(adapters, "image", path)
    header = struct.pack("<2sIII", b"BM", 54, 0, 54)
    header += struct.pack("<IiiHH", 40, 60_000, 60_000, 1, 24) + bytes(24)
    path.with_suffix(".bmp").write_bytes(header)
    assert "pixels" in refusal(adapters, "image", path.with_suffix(".bmp"))


def test_long_sounds(adapters, tmp_path):
    seconds, rate = 36_000, 16_000
    size = 2 * seconds * rate
    path = tmp_path / "long.wav"
    with open(path, "wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE"))
        file.write(struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16))
        file.write(struct.pack("<4sI", b"data", size))
        file.truncate(size + 44)  # sparse
    assert "36,000 s, more than the limit of 600 s" in refusal(adapters, "audio", path)
    flac = tmp_path / "long.flac"
    soundfile.write(flac, np.zeros(1000), rate)
    data = bytearray(flac.read_bytes())
    data[21] |= (seconds * rate >> 32) & 0xF  # the 36 bits of the number of samples
    data[22:26] = struct.pack(">I", seconds * rate & 0xFFFFFFFF)
    flac.write_bytes(data)
    assert "36,000 s" in refusal(adapters, "audio", flac)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_sound_of_no_length(suffix, adapters, tmp_path):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.zeros(0), 8_000)
    assert refusal(adapters, "audio", path)
    if suffix == ".wav":
        assert "length is zero" in refusal(adapters, "audio", path)


def test_samples_that_are_not_numbers(adapters, tmp_path):
    for value in (np.nan, np.inf):
        soundfile.write(tmp_path / "a.wav", np.full(8_000, value), 8_000, subtype="FLOAT")
        assert "not finite" in refusal(adapters, "audio", tmp_path / "a.wav")


def test_video_without_sound_or_frames(adapters, good, tmp_path):
    av = pytest.importorskip("av")
    assert "no sound" in refusal(adapters, "audio", good["video", ".mp4"])
    path = tmp_path / "sound_only.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.rate = 8_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "no frames" in refusal(adapters, "video", path)


def test_video_over_the_limits(good, nano):
    for limit, word in (({"max_pixels": 1000}, "pixels"), ({"max_seconds": 0.5}, "lasts")):
        adapter = create_adapter("video", {**nano["video"], **limit})
        for suffix in SUFFIXES["video"]:
            with pytest.raises(MediaError, match=word):
                adapter.read(good["video", suffix])


def test_shapes_without_faces_or_with_bad_vertices(adapters, tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    assert refusal(adapters, "shape3d", path)
    (tmp_path / "a.off").write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n")
    assert "no faces" in refusal(adapters, "shape3d", tmp_path / "a.off")
    (tmp_path / "a.stl").write_text("solid a\nendsolid a\n")
    assert refusal(adapters, "shape3d", tmp_path / "a.stl")
    for value in (np.nan, np.inf, 1e300):
        box = trimesh.creation.box()
        vertices = box.vertices.copy()
        vertices[3, 1] = value
        vertices[4, 1] = -value
        lines = [f"v {x} {y} {z}" for x, y, z in vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in box.faces + 1]
        path.write_text("\n".join(lines))
        if value != 1e300:
            assert "not finite" in refusal(adapters, "shape3d", path)
    (tmp_path / "point.off").write_text("OFF\n3 1 0\n" + "1 1 1\n" * 3 + "3 0 1 2\n")
    assert "no extent" in refusal(adapters, "shape3d", tmp_path / "point.off")


def test_shapes_that_claim_too_much(adapters, nano, good, tmp_path):
    small = create_adapter("shape3d", {**nano["shape3d"], "max_vertices": 100})
    for suffix in SUFFIXES["shape3d"]:
        with pytest.raises(MediaError, match="more than the limit|vertices"):
            small.read(good["shape3d", suffix])
    tiny = create_adapter("shape3d", {**nano["shape3d"], "max_bytes": 100})
    with pytest.raises(MediaError, match="bytes, more than the limit"):
        tiny.read(good["shape3d", ".stl"])
    ply = "ply\nformat binary_little_endian 1.0\nelement vertex 1000000000000\n"
    (tmp_path / "a.ply").write_text(ply + "property float x\nend_header\n" + "x" * 99)
    assert "truncated" in refusal(adapters, "shape3d", tmp_path / "a.ply")


def test_glb_opens_no_other_file(adapters, tmp_path):
    box = trimesh.creation.box()
    (tmp_path / "secret.bin").write_bytes(box.vertices.astype(np.float32).tobytes() * 10)
    for uri in ("secret.bin", "../secret.bin", str(tmp_path / "secret.bin")):
        tree = (
            '{"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],"nodes":[{"mesh":0}],'
            '"meshes":[{"primitives":[{"attributes":{"POSITION":0},"mode":0}]}],'
            '"accessors":[{"bufferView":0,"componentType":5126,"count":24,"type":"VEC3"}],'
            '"bufferViews":[{"buffer":0,"byteLength":288}],'
            f'"buffers":[{{"byteLength":960,"uri":"{uri}"}}]}}'
        ).encode()
        tree += b" " * (-len(tree) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 20 + len(tree))
        path = tmp_path / "a.glb"
        path.write_bytes(head + struct.pack("<I4s", len(tree), b"JSON") + tree)
        assert refusal(adapters, "shape3d", path)
    zeros = tree.replace(b'"bufferView":0,', b"").replace(b'"count":24', b'"count":1000000000000')
    zeros += b" " * (-len(zeros) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(zeros))
    path.write_bytes(head + struct.pack("<I4s", len(zeros), b"JSON") + zeros)
    assert "claims" in refusal(adapters, "shape3d", path)


def test_text(tmp_path, adapters):
    adapter = create_adapter("text", {"max_bytes": 100})
    path = tmp_path / "a.txt"
    path.write_bytes("Müller".encode("latin-1"))
    assert refusal({"text": adapter}, "text", path) == "is not UTF-8: byte 0xfc at offset 1"
    path.write_text("x" * 101)
    assert "more than the limit" in refusal({"text": adapter}, "text", path)
    path.write_bytes(b"\xef\xbb\xbf" + "左上角的红色七\n".encode())
    assert adapter.read(path) == "左上角的红色七\n"
    assert adapter.read("a red seven") == "a red seven"
    assert adapter.read(adapter.write("a\r\nb é 七", path)) == "a\r\nb é 七"
    assert create_adapter("text", adapter.settings()) == adapter
