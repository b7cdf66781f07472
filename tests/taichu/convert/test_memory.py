"""A conversion's memory does not hang on the model's size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[3]
WIDTH, DEPTH = 1024, 10
MOST = 20e6  # bytes

PROGRAM = """
import sys
from taichu.convert.from_hf import convert_from_hf
from taichu.convert.to_hf import convert_to_hf

def most():  # of this program alone, the largest that it was
    lines = open("/proc/self/status").read().split("\\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

folder, small, out = sys.argv[1:]
convert_to_hf(convert_from_hf(small, out + "/first"), out + "/first-again")
before = most()
convert_from_hf(folder, out + "/large")
between = most()
convert_to_hf(out + "/large", out + "/large-again")
print(between - before, most() - between)
assert not {"torch", "mindspore", "transformers"} & set(sys.modules)
"""


def write_model(folder: Path, tokenizer, width: int, depth: int) -> int:
    """A Mistral of bfloat16 whose numbers are bits as they come; returns its size in bytes."""
    folder.mkdir()
    (folder / tokenizer.file).write_bytes(tokenizer.content)
    names = {"model.embed_tokens": (400, width), "lm_head": (400, width), "model.norm": (width,)}
    for n in range(depth):
        block = f"model.layers.{n}."
        names |= {f"{block}self_attn.{part}_proj": (width, width) for part in "qkvo"}
        names |= {f"{block}mlp.{part}_proj": (2 * width, width) for part in ("gate", "up")}
        names |= {f"{block}mlp.down_proj": (width, 2 * width)}
        for part in ("input_layernorm", "post_attention_layernorm"):
            names[block + part] = (width,)
    entries, end = {}, 0
    for name, shape in names.items():
        first, end = end, end + 2 * int(np.prod(shape))
        place = {"shape": shape, "data_offsets": [first, end]}
        entries[f"{name}.weight"] = {"dtype": "BF16", **place}
    header = json.dumps(entries).encode()
    bits = np.random.default_rng(0).integers(0x3C00, 0x3F00, 1 << 20, np.uint16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, end // 2, len(bits)):
            file.write(bits[: end // 2 - start])
    settings = {"model_type": "mistral", "vocab_size": 400, "hidden_size": width}
    settings |= {"intermediate_size": 2 * width, "num_hidden_layers": depth}
    settings |= {"num_attention_heads": 8, "num_key_value_heads": 8, "sliding_window": None}
    (folder / "config.json").write_text(json.dumps(settings))
    return end


def test_memory(tokenizer, tmp_path):
    assert tokenizer.size <= 400
    size = write_model(tmp_path / "published", tokenizer, WIDTH, DEPTH)
    write_model(tmp_path / "small", tokenizer, 16, 1)
    assert size > 200e6 and MOST < size / 10
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, (tmp_path / "published", tmp_path / "small"))]
        + [str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert all(int(grown) < MOST for grown in done.stdout.split())
    first, last = (tmp_path / n / "model.safetensors" for n in ("published", "large-again"))
    assert first.stat().st_size - last.stat().st_size < 4096  # their headers
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
