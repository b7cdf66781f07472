"""Tiny published encoders with parameters as they were drawn, made by `transformers`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

VISION = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3}
VISION |= {"num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 50}
TEXT |= {"num_attention_heads": 1}
SOUND = {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 80}
SOUND |= {"decoder_layers": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 16}
SOUND |= {"vocab_size": 60, "max_source_positions": 40, "num_mel_bins": 80, "pad_token_id": 0}
SOUND |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}

# by name: the class that is saved, and what differs in its encoder's settings
ENCODERS = {
    "clip": ("CLIPModel", {}),
    "clip-gelu": ("CLIPVisionModel", {"hidden_act": "gelu"}),
    "clip-projected": ("CLIPVisionModelWithProjection", {"layer_norm_eps": 1e-3}),
    "siglip": ("SiglipModel", {}),
    "siglip-uneven": ("SiglipVisionModel", {"image_size": 36}),
    "whisper": ("WhisperForConditionalGeneration", {}),
    "whisper-128": ("WhisperModel", {"num_mel_bins": 128}),
}


@dataclass
class Encoder:
    """A published encoder: its folder, and what computes it there."""

    folder: Path
    model: torch.nn.Module
    sound: bool

    def read(self, inputs: np.ndarray, hidden: int | None = None) -> np.ndarray:
        """(n, tokens, width) of pixels (n, 3, Y, X) or spectrograms (n, bands, frames): what comes
        last, or the hidden state of a number, without a class token."""
        with torch.no_grad():
            out = self.model(torch.tensor(inputs), output_hidden_states=True)
        states = out.last_hidden_state if hidden is None else out.hidden_states[hidden]
        has_class = not self.sound and "Clip" in type(self.model).__name__.title()
        return states[:, has_class:].numpy() if has_class else states.numpy()


def publish_encoder(folder: Path, name: str) -> Encoder:
    """Write one of `ENCODERS` as it would be published."""
    kind, settings = ENCODERS[name]
    sound, base = "Whisper" in kind, kind.partition("Vision")[0].removesuffix("Model")
    if sound:
        model = getattr(transformers, kind)(transformers.WhisperConfig(**{**SOUND, **settings}))
        encoder = model.get_encoder()
    elif "Vision" in kind:
        config = getattr(transformers, f"{base}VisionConfig")(**{**VISION, **settings})
        model = getattr(transformers, kind)(config)
        encoder = model
    else:
        inner = {"vision_config": {**VISION, **settings}, "text_config": TEXT}
        model = getattr(transformers, kind)(getattr(transformers, f"{base}Config")(**inner))
        encoder = model.vision_model
    if kind == "CLIPVisionModelWithProjection":
        encoder = model.vision_model
    draw = torch.Generator().manual_seed(len(name))
    for key, parameter in model.named_parameters():
        if "embed_positions" in key:
            continue  # Whisper's are not drawn
        drawn = torch.randn(parameter.shape, generator=draw)
        is_norm = "norm" in key and key.endswith("weight")
        parameter.data = 1 + 0.2 * drawn if is_norm else 0.15 * drawn
    model.eval().save_pretrained(folder)
    return Encoder(folder, encoder.eval(), sound)


def run_tower(model, patches: np.ndarray):
    """What the tower gives, and what its projector makes of that."""
    import mindspore as ms

    embedder, seen = model.backbone.patch_embedders[0], []
    tower = embedder.tower.construct
    embedder.tower.construct = lambda x: seen.append(tower(x)) or seen[-1]
    try:
        projected = embedder(ms.Tensor(patches)).asnumpy()
    finally:
        embedder.tower.construct = tower
    return seen[0].asnumpy(), projected
