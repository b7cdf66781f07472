"""P-tuning v2: prompts in every block, without reparameterisation (Liu et al., 2110.07602)."""

from dataclasses import dataclass
from typing import ClassVar

from taichu.errors import ConfigError
from taichu.model.matrices import draw_matrix
from taichu.tuning.prefix import DeepPrefix, PrefixMethod


@dataclass(frozen=True, kw_only=True)
class PTuningV2(PrefixMethod):
    """Deep prompts (section 3.2): keys and values of each block are themselves what is trained."""

    peft_type: ClassVar[str] = "PREFIX_TUNING"

    def create(self, backbone, weight):
        return DeepPrompts(backbone, self.places, weight)

    def settings(self, backbone):
        return super().settings(backbone) | {"prefix_projection": False}

    @classmethod
    def of_settings(cls, content, where):
        if content.get("prefix_projection"):
            raise ConfigError(f"{where}: prefix_projection must be false")
        return super().of_settings(content, where)


class DeepPrompts(DeepPrefix):
    """A prefix whose matrix is a parameter."""

    def __init__(self, backbone, places, weight):
        super().__init__(backbone, places, weight)
        self.prompt_embeddings = draw_matrix((places, self.numbers), 1.0)

    def matrix(self):
        return self.prompt_embeddings
