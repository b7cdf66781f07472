"""Prompt tuning: learned tokens before the first of every segment (Lester et al., 2104.08691).

Names of dimensions as in `taichu.tuning.prefix`.
"""

from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import ops

from taichu.tuning.prefix import Prefix, PrefixMethod


@dataclass(frozen=True, kw_only=True)
class PromptTuning(PrefixMethod):
    """[P_e; X_e] (section 2): P vectors of width D stand before a segment's own, at coordinates -P
    to -1. At the start they are vectors of drawn ids, which the paper finds better than noise.

    They see each other causally and nothing else, so what they become in a block is the same for
    all segments: they run through the blocks once, and their keys and values are seen by all.
    """

    places: int = 20

    peft_type: ClassVar[str] = "PROMPT_TUNING"

    def create(self, backbone, weight):
        return Prompt(backbone, self.places, weight)

    def shapes(self, backbone, base):
        return {"prompt_embeddings": (self.places, backbone.width)}

    @classmethod
    def of_settings(cls, content, where):
        content = dict(content)
        for key in ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"):
            content.pop(key, None)
        return super().of_settings(content, where)


class Prompt(Prefix):
    """Vectors (P, D) that run through the blocks; see `Prefix`."""

    def __init__(self, backbone, places, weight):
        super().__init__(places, weight)
        drawn = ops.randint(0, backbone.vocabulary_size, (places,)).astype(ms.int32)
        vectors = backbone.look_up(drawn).asnumpy().astype(np.float32)
        self.prompt_embeddings = ms.Parameter(vectors)
        coords_P3 = np.tile(np.arange(-places, 0)[:, None], (1, 3))
        self.coords_1P3 = ms.Tensor(coords_P3[None], ms.int32)
        self.segment_1P = ms.Tensor(np.ones((1, places)), ms.int32)
        self.span_1P = ms.Tensor(np.zeros((1, places)), ms.int32)

    def construct(self, backbone):
        x_PD = self.prompt_embeddings.astype(backbone.matmul.type)
        branch_PD = ops.zeros_like(x_PD)
        cos_PK, sin_PK = backbone.turn(self.coords_1P3)
        bias_P, found = self.bias(), ()
        for block in backbone.blocks:
            attention = block.attention
            x_PD, y_PD = block.attention_norm(x_PD, branch_PD)
            q, k, v = attention.project(y_PD, cos_PK, sin_PK)
            found += ((k, v, bias_P),)
            seen = attention.attention(q, k, v, self.segment_1P, self.span_1P)
            x_PD, branch_PD = block.feed(x_PD, attention.join_heads(seen), self.segment_1P)
        return found
