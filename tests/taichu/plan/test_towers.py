"""Parameters and operations of towers, against real models and PyTorch's own count."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from taichu.config import TowerConfig
from taichu.plan.operations import tower_products
from tests.taichu.plan.test_parameters import check

SIZES = {"width": 48, "depth": 2, "heads": 3, "hidden": 80, "activation": "gelu"}
SIZES |= {"norm_epsilon": 1e-5}
CLIP = TowerConfig("clip", **SIZES, channels=3, last_norm=False)
WHISPER = TowerConfig("whisper", **SIZES, channels=32, frozen=False, projector="linear")


def test_every_parameter_is_counted(read_workload):
    work = read_workload("model=nano")
    for image, audio in ((CLIP, WHISPER), (replace(CLIP, kind="siglip", last_norm=True), WHISPER)):
        towers = {"image": image, "audio": audio}
        check(replace(work, size=replace(work.size, towers=towers)))


@pytest.mark.parametrize("frozen", [True, False])
def test_products_are_those_that_pytorch_counts(frozen):
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    sound = {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3}
    sound |= {"encoder_ffn_dim": 80, "num_mel_bins": 32, "max_source_positions": 32}
    eager = {"attn_implementation": "eager"}
    clip = transformers.CLIPVisionConfig(**vision, **eager)
    whisper = transformers.WhisperConfig(**sound, **eager)
    for tower, model, inputs, (n, T, P) in (
        (CLIP, transformers.CLIPVisionModel(clip), (3, 3, 32, 32), (48, 16, 192)),
        (WHISPER, transformers.WhisperModel(whisper).encoder, (3, 32, 64), (48, 16, 128)),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            model.eval()(torch.zeros(inputs))
        products = tower_products(replace(tower, frozen=frozen), n, T, P, 64)
        made = [product for product in products if product.part == "towers"]
        assert sum(product.forward for product in made) == counted.get_total_flops()
        assert (sum(product.backward for product in made) == 0) == frozen
        projector = sum(product.forward for product in products) - counted.get_total_flops()
        second = 2 * n * 64 * 64 * (tower.projector == "mlp")
        assert projector == 2 * n * 48 * 64 + second
