"""How the tensors of a language model are called there and here."""

from collections.abc import Iterator

from taichu.config import ModelConfig
from taichu.model.published_names import OUTSIDE, THEIRS_TO_OURS

TABLE, HEAD, NORM = (f"{OUTSIDE[cell]}.weight" for cell in ("table", "head", "norm"))

# our tensors that no language model has
NEW = (
    "patch_scales.",
    "patch_embedders.",
    "table.digits",
    "head.digits",
    "projection.",
    "log_scale",
)


def language_tensors(config: ModelConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Their name, ours and their shape of each tensor of a language model; one after the other, as
    a config may name more blocks than there could be. Of tables ours has more rows."""
    D, F, K = config.width, config.hidden, config.head_size
    queries, keys = config.heads * K, config.key_value_heads * K
    yield TABLE, "table.own", (config.pieces, D)
    if not config.tied:
        yield HEAD, "head.own", (config.pieces, D)
    shapes = {
        "input_layernorm": (D,),
        "self_attn.q_proj": (queries, D),
        "self_attn.k_proj": (keys, D),
        "self_attn.v_proj": (keys, D),
        "self_attn.o_proj": (D, queries),
        "post_attention_layernorm": (D,),
        "mlp.gate_proj": (F, D),
        "mlp.up_proj": (F, D),
        "mlp.down_proj": (D, F),
    }
    if config.query_key_norm:
        shapes |= {"self_attn.q_norm": (K,), "self_attn.k_norm": (K,)}
    for n in range(config.depth):
        for part, shape in shapes.items():
            theirs, ours = f"model.layers.{n}.{part}", f"blocks.{n}.{THEIRS_TO_OURS[part]}"
            yield f"{theirs}.weight", f"{ours}.weight", shape
            if config.bias and part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                yield f"{theirs}.bias", f"{ours}.bias", shape[:1]
    yield NORM, "norm.weight", (D,)
