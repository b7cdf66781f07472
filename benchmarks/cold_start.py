"""Time from a process' start to its first embedding: an exported model, and the same on MindSpore.

    python benchmarks/cold_start.py [FOLDER]

FOLDER is a model folder, by default nano as it is drawn. Each turn is a new process on two threads;
graphs that MindSpore has compiled before are not kept. Needs `pip install "taichu[train,runtime]"`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from harness import THREADS, interleaved, machine, options, use_threads, write_ratios

EMBED = "print(model.embed(text='a red seven').shape)"
RUNTIME = "import sys; from taichu.runtime import Runtime; model = Runtime(sys.argv[1], 'cpu'); "
MINDSPORE = "import sys; from taichu import Taichu; model = Taichu.from_pretrained(sys.argv[1]); "


def main():
    parser = options(__doc__, runs=7)
    parser.add_argument("folder", nargs="?", type=Path, help="a model folder")
    chosen = parser.parse_args()
    use_threads()
    from taichu.export.onnx_folder import export_onnx

    with tempfile.TemporaryDirectory() as place:
        folder = chosen.folder or draw_nano(Path(place) / "model")
        exported = export_onnx(folder, Path(place) / "exported")
        ways = {
            "taichu.runtime": lambda: run(RUNTIME, exported),
            "MindSpore": lambda: run(MINDSPORE, folder),
        }
        seconds = interleaved(ways, chosen.runs)
    print(f"{machine()}; {THREADS} threads; {chosen.runs} runs")
    for name, taken in seconds.items():
        print(f"{name:<18}{taken:>6.2f} s from the start to an embedding")
    ratio = seconds["taichu.runtime"] / seconds["MindSpore"]
    write_ratios(chosen.json, {"cold_start.nano": ratio}, chosen.runs)


def run(program: str, folder: Path):
    subprocess.run([sys.executable, "-c", program + EMBED, folder], check=True, capture_output=True)


def draw_nano(folder: Path) -> Path:
    """nano with a small tokenizer, nothing learned."""
    from workload import network_of

    from taichu import Taichu
    from taichu.config import load_size

    _, vocabulary, _ = network_of("nano")
    Taichu(load_size("nano"), vocabulary.tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
