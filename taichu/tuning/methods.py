"""All methods, by the names that recipes give them."""

from taichu.config import build, nearest
from taichu.errors import ConfigError
from taichu.tuning.adalora import AdaLora
from taichu.tuning.bitfit import BitFit
from taichu.tuning.bottleneck import Bottleneck
from taichu.tuning.compacter import Compacter
from taichu.tuning.dora import Dora
from taichu.tuning.freeze import Freeze
from taichu.tuning.ia3 import Ia3
from taichu.tuning.lora import Lora
from taichu.tuning.method import Method
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.prefix import PrefixTuning
from taichu.tuning.prompt import PromptTuning
from taichu.tuning.trainable_tokens import TrainableTokens

METHODS = {
    "lora": Lora,
    "dora": Dora,
    "adalora": AdaLora,
    "ia3": Ia3,
    "prefix": PrefixTuning,
    "p_tuning_v2": PTuningV2,
    "prompt": PromptTuning,
    "bottleneck": Bottleneck,
    "compacter": Compacter,
    "bitfit": BitFit,
    "freeze": Freeze,
    "trainable_tokens": TrainableTokens,
}


def create_method(settings: dict, steps: int) -> Method:
    """The method that a recipe names, ``{name: lora, rank: 16}``, with its settings.

    Args:
        settings: ``name``, of `METHODS`, and fields of its class.
        steps: of the training, with which AdaLoRA's schedule ends where it is not told otherwise.

    Raises:
        ConfigError: the name is unknown, or a setting.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"method.name: {name!r} is unknown{nearest(name, METHODS)}; of {known}")
    if METHODS[name] is AdaLora:
        settings.setdefault("steps", steps)
    return build(METHODS[name], settings, "method")


def method_of(content: dict) -> type:
    """The class that a PEFT folder's settings are of; None where there is no such."""
    kind = content.get("peft_type")
    if kind == "LORA":
        return Dora if content.get("use_dora") else Lora
    if kind == "PREFIX_TUNING":
        return PTuningV2
    return {cls.peft_type: cls for cls in METHODS.values()}.get(kind)
