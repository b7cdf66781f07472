"""Times the adapters, from file to grid, against the nearest way that others read such files.

    python benchmarks/adapters.py --json adapters.json

Both read the same files of the digits into arrays of the same size: pictures with Hugging Face's
CLIP processor, sounds with librosa, clips frame by frame with OpenCV and NumPy, solids with
trimesh's voxels and SciPy's distance transform. Needs `pip install "taichu[benchmark,demo]"`.
"""

import tempfile
from pathlib import Path

import cv2
import librosa
import numpy as np
import trimesh
from harness import interleaved, machine, options, use_threads, write_ratios
from PIL import Image
from scipy.ndimage import distance_transform_edt

FILES = 40  # of each modality, read in every turn


def main():
    chosen = options(__doc__, runs=7).parse_args()
    use_threads()
    print(f"{machine()}; {FILES} files, {chosen.runs} turns a way")
    from taichu.config import load_size
    from taichu.storage.model_folder import create_adapters

    adapters = create_adapters(load_size("nano"))
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        files = files_of(Path(folder))
        for name, adapter in adapters.items():
            peer = PEERS[name](adapter.geometry.shape)
            ways = {
                "ours": lambda name=name, adapter=adapter: [adapter.read(f) for f in files[name]],
                "peer": lambda name=name, peer=peer: [peer(f) for f in files[name]],
            }
            sizes = {way: np.asarray(call()[0]).size for way, call in ways.items()}
            if sizes["ours"] != sizes["peer"]:
                raise SystemExit(f"{name}: arrays of different sizes: {sizes}")
            median = interleaved(ways, chosen.runs)
            ratios[f"adapters.{name}"] = round(median["ours"] / median["peer"], 3)
            speeds = [f"{way} {FILES / seconds:7.0f}" for way, seconds in median.items()]
            print(f"{name:>8} {', '.join(speeds)} files a second", flush=True)
            print(f"{name:>8} ours / {PEERS[name].__name__}: {ratios[f'adapters.{name}']:.2f}")
    write_ratios(chosen.json, ratios, chosen.runs)


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Training files of a small set of the digits, by modality."""
    from taichu.data.digits.build import Counts, build_digits

    counts = Counts(image=FILES, video=FILES, shape3d=FILES, human=FILES, names=0)
    few = Counts(image=10, video=10, shape3d=10, human=10, names=0)
    build_digits(folder / "digits", train=counts, test=few, progress=False)
    of = {m: sorted((folder / "digits/train" / m).iterdir()) for m in PEERS}
    return {modality: paths[:FILES] for modality, paths in of.items()}


def hugging_face(shape):
    """CLIP's processor, told the size, the mean and the deviation."""
    from transformers import CLIPImageProcessor

    _, height, width, _ = shape
    processor = CLIPImageProcessor(
        size={"height": height, "width": width},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return lambda path: processor(Image.open(path), return_tensors="np")["pixel_values"][0]


def with_librosa(shape):
    """Load, mel spectrogram, decibels, and a fixed number of frames."""
    frames, _, bands, _ = shape

    def read(path):
        samples, rate = librosa.load(path, sr=8000)
        mel = librosa.feature.melspectrogram(
            y=samples, sr=rate, n_fft=512, hop_length=320, n_mels=bands
        )
        decibels = librosa.power_to_db(mel, ref=np.max, top_db=50)
        return librosa.util.fix_length(decibels, size=frames, axis=1) / 25 + 1

    return read


def opencv(shape):
    """Decode all frames, take evenly spaced ones, resize, spread over -1 to 1."""
    count, height, width, _ = shape

    def read(path):
        video, frames = cv2.VideoCapture(str(path)), []
        while (got := video.read())[0]:
            frames.append(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB))
        video.release()
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        clip = np.stack([cv2.resize(frames[i], (width, height)) for i in chosen])
        return clip.astype(np.float32) / 127.5 - 1

    return read


def with_trimesh(shape):
    """Voxelise, fill, and the distance to the boundary inside and outside."""
    size = shape[0]

    def read(path):
        mesh = trimesh.load(path, force="mesh")
        voxels = mesh.voxelized(mesh.extents.max() / (size - 4)).fill().matrix
        free = [size - n for n in voxels.shape]
        solid = np.pad(voxels, [(n // 2, n - n // 2) for n in free])
        signed = distance_transform_edt(~solid) - distance_transform_edt(solid)
        return (signed / 3).clip(-1, 1).astype(np.float32)

    return read


PEERS = {"image": hugging_face, "audio": with_librosa, "video": opencv, "shape3d": with_trimesh}


if __name__ == "__main__":
    main()
