"""A backbone of one block, a batch of captions to be written of pictures, and what methods are
tried with."""

import mindspore as ms
import numpy as np

from taichu.config import ModelConfig
from taichu.model.backbone import Backbone
from taichu.training.objectives import Objective
from taichu.tuning.adalora import AdaLora
from taichu.tuning.bitfit import BitFit
from taichu.tuning.bottleneck import Bottleneck
from taichu.tuning.compacter import Compacter
from taichu.tuning.dora import Dora
from taichu.tuning.freeze import Freeze
from taichu.tuning.ia3 import Ia3
from taichu.tuning.lora import Lora
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.prefix import PrefixTuning
from taichu.tuning.prompt import PromptTuning
from taichu.tuning.trainable_tokens import TrainableTokens

SMALL = ModelConfig(
    width=32, depth=1, heads=4, key_value_heads=2, head_size=8, hidden=48, embedding=16, pieces=0
)
TARGETS = ("attention.query", "attention.value", "feed_forward.down")
METHODS = {
    "lora": Lora(
        rank=4, targets=TARGETS, rate_ratio=4.0, modules_to_save=("patch_embedders.0", "projection")
    ),
    "dora": Dora(rank=3, targets=TARGETS),
    "adalora": AdaLora(steps=8, initial_rank=3, target_rank=2, targets=TARGETS),
    "ia3": Ia3(),
    "prefix": PrefixTuning(places=5),
    "p_tuning_v2": PTuningV2(places=5),
    "prompt": PromptTuning(places=5),
    "bottleneck": Bottleneck(width=8),
    "compacter": Compacter(width=8),
    "bitfit": BitFit(),
    "freeze": Freeze(frozen=("blocks.*.attention", "table", "log_scale")),
    "trainable_tokens": TrainableTokens(tokens=tuple(range(396, 0, -2))),
}


class Trial:
    """A backbone with the same parameters each time, its batch, and what it computes."""

    def __init__(self, batch, vocabulary, config: ModelConfig = SMALL):
        ms.set_seed(11)  # for what methods draw
        self.batch, self.arrays = batch, [ms.Tensor(a) for a in batch.arrays()]
        self.backbone = Backbone(config, vocabulary.size, [(4, 6), (3, 4)])
        random = np.random.default_rng(3)
        for name, parameter in self.backbone.parameters_and_names():
            if parameter.ndim > 1:
                drawn = random.standard_normal(parameter.shape) * parameter.shape[-1] ** -0.5
                parameter.set_data(ms.Tensor(drawn, ms.float32))
            elif name.endswith("norm.weight"):
                drawn = 1 + 0.2 * random.standard_normal(parameter.shape)
                parameter.set_data(ms.Tensor(drawn, ms.float32))
        self.objective = Objective(self.backbone, vocabulary, alignment_weight=0.0)

    def hidden(self) -> np.ndarray:
        """Of the tokens alone, (N, D)."""
        used = self.batch.segment.reshape(-1) > 0
        return self.backbone(*self.arrays[:5], *self.arrays[12:]).asnumpy()[used]

    def loss(self) -> float:
        return float(self.objective(*self.arrays)[0].asnumpy())


def disturb(parameters, seed: int = 0, size: float = 0.3):
    """Add drawn numbers to parameters, as if they had been trained."""
    random = np.random.default_rng(seed)
    for parameter in parameters:
        drawn = size * random.standard_normal(parameter.shape)
        parameter.set_data(ms.Tensor(parameter.asnumpy() + drawn, ms.float32))
