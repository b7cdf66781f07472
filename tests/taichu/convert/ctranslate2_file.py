"""Whisper's published weights as a CTranslate2 file holds them, in the layout of `transformers`.

Such a file is: version, name and revision of its kind; then, tensor by tensor, name, dimensions,
type and bytes (little-endian; texts are led by their length).
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

KINDS = (np.float32, np.int8, np.int16, np.int32, np.float16)
# theirs -> transformers', of a layer's parts
ENCODER = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
DECODER = ENCODER | {
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": "encoder_attn.out_proj",
}
TOP = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
}
LAST = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a CTranslate2 file."""
    with open(path, "rb") as file:

        def number(kind) -> int:
            return int(np.fromfile(file, kind, 1)[0])

        def text() -> str:
            return file.read(number("<u2")).rstrip(b"\0").decode()

        assert (number("<u4"), text(), number("<u4")) == (6, "WhisperSpec", 3)
        found = {}
        for _ in range(number("<u4")):
            name = text()
            shape = [number("<u4") for _ in range(number("u1"))]
            kind = KINDS[number("u1")]
            count = number("<u4") // np.dtype(kind).itemsize
            found[name] = np.fromfile(file, kind, count).reshape(shape)
    return found


def publish_whisper(path: Path, folder: Path) -> Path:
    """Write the file's encoder and decoder as `transformers` does; returns the folder."""
    import transformers

    tensors, made = read_file(path), {}
    for name, value in tensors.items():
        side, *parts, last = name.split("/")
        if value.dtype != np.float16:
            continue  # settings
        last, start = LAST.get(last, last), f"model.{side}"
        if not parts[0].startswith("layer_") or parts[0] == "layer_norm":
            made[f"{start}.{TOP[parts[0]]}.{last}"] = value
            continue
        names = (ENCODER if side == "encoder" else DECODER)["/".join(parts[1:])]
        names = (names,) if isinstance(names, str) else names
        for part, of_part in zip(names, np.split(value, len(names))):
            if part.endswith("k_proj") and last == "bias":
                assert not of_part.any()  # there is none
                continue
            made[f"{start}.layers.{parts[0][6:]}.{part}.{last}"] = of_part
    width = len(made["model.encoder.conv1.bias"])
    settings = {"d_model": width, "vocab_size": len(made["model.decoder.embed_tokens.weight"])}
    for side in ("encoder", "decoder"):
        settings[f"{side}_layers"] = 4
        settings[f"{side}_attention_heads"] = int(tensors[f"{side}/num_heads"])
        settings[f"{side}_ffn_dim"] = 4 * width
    # of tiny.en: text starts behind <|startoftranscript|> <|notimestamps|>
    settings |= {"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256}
    settings |= {"decoder_start_token_id": 50257, "num_mel_bins": 80}
    folder.mkdir(parents=True)
    transformers.WhisperConfig(**settings).save_pretrained(folder)
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    return folder
