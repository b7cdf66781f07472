"""What the config.json of LLaMA, Qwen2, Qwen3 and Mistral models means for the backbone.

The meaning of each key, and of its absence, is that of the `transformers` package. A key that is
not known here might change what is computed, so it is refused.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from taichu.convert.rope_settings import read_rope
from taichu.convert.settings import Settings
from taichu.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """How a family's blocks differ, and what it takes for granted.

    Attributes:
        bias: on queries, keys and values. query_key_norm: RMSNorm of each head of queries and keys.
        key_value_heads: where config.json names none; None: as many as heads.
        head_size: likewise; None: width / heads.
        window: likewise, tokens that each token sees; None: all before it.
    """

    bias: bool = False
    query_key_norm: bool = False
    key_value_heads: int | None = None
    head_size: int | None = None
    window: int | None = None


FAMILIES = {
    "llama": Family(),
    "mistral": Family(key_value_heads=8, window=4096),
    "qwen2": Family(bias=True, key_value_heads=32),
    "qwen3": Family(query_key_norm=True, key_value_heads=32, head_size=128),
}

# keys that are known with one meaning only: what else they may say, our blocks do not compute
ONLY = {
    "add_cross_attention": False,
    "attention_bias": False,  # true: of LLaMA and Qwen3 on the output, too
    "chunk_size_feed_forward": 0,
    "hidden_act": "silu",
    "is_encoder_decoder": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "pruned_heads": {},
    "quantization_config": None,
    "tie_encoder_decoder": False,
    "use_mrope": False,
    "use_sliding_window": False,
}

# keys that say nothing of what is computed: what a model is called and was trained with, and how
# texts are sampled, which stood here before there was a generation_config.json
SILENT_NAMES = """
_name_or_path architectures model_type transformers_version tokenizer_class unsloth_fixed
unsloth_version _attn_implementation _attn_implementation_autoset dtype torch_dtype
initializer_range attention_dropout hidden_dropout bos_token_id eos_token_id pad_token_id
sep_token_id decoder_start_token_id use_cache pretraining_tp max_window_layers is_decoder
torchscript output_attentions output_hidden_states return_dict use_bfloat16 prefix
finetuning_task id2label label2id problem_type task_specific_params

max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
return_dict_in_generate suppress_tokens forced_bos_token_id forced_eos_token_id
begin_suppress_tokens remove_invalid_values exponential_decay_length_penalty tf_legacy_loss
"""


def backbone_settings(content: dict, where: Path) -> dict:
    """A published config.json as settings of `taichu.config.ModelConfig`, its pieces those of the
    published table.

    Raises:
        CheckpointError: a key is missing, malformed or unknown, or asks for what our blocks do not
            compute.
    """
    settings = Settings(content, where)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(f"{where}: model_type is {kind!r}; it must be one of {known}")
    family = FAMILIES[kind]
    width, heads = settings.count("hidden_size"), settings.count("num_attention_heads")
    found = {
        "width": width,
        "depth": settings.count("num_hidden_layers"),
        "heads": heads,
        "key_value_heads": _key_value_heads(settings, family, heads),
        "head_size": _head_size(settings, family, width, heads),
        "hidden": settings.count("intermediate_size"),
        "pieces": settings.count("vocab_size"),
        "query_key_norm": family.query_key_norm,
        "bias": family.bias,
        "tied": bool(settings.take("tie_word_embeddings", bool, False)),
        "scaled_ids": False,
        "norm_epsilon": settings.positive("rms_norm_eps", 1e-6),
    }
    longest = settings.count("max_position_embeddings", None)
    found |= read_rope(settings, longest)
    _refuse_windows(settings, family, longest)
    for key, value in ONLY.items():
        given = settings.take(key, object, value)
        if given is not None and given != value:
            raise settings.error(key, f"is {given!r}; only {value!r} is known")
    settings.refuse_rest(set(SILENT_NAMES.split()))
    return found


def _key_value_heads(settings: Settings, family: Family, heads: int) -> int:
    count = settings.count("num_key_value_heads", family.key_value_heads) or heads
    if heads % count:
        raise settings.error("num_key_value_heads", f"is {count}; it must divide {heads} heads")
    return count


def _head_size(settings: Settings, family: Family, width: int, heads: int) -> int:
    size = settings.count("head_dim", family.head_size)
    if size is None:
        if width % heads:
            raise settings.error("num_attention_heads", f"is {heads}; it must divide {width}")
        size = width // heads
    if size % 2:
        raise settings.error("head_dim", f"is {size}; it must be even")
    return size


def _refuse_windows(settings: Settings, family: Family, longest: int | None):
    """A window changes nothing where it is as long as the longest row; a shorter one does, and no
    operator of ours has one. Qwen's is used with use_sliding_window only, and LLaMA has none."""
    window = settings.count("sliding_window", family.window)
    if family.window and window and window < (longest or math.inf):
        raise settings.error(
            "sliding_window",
            f"is {window}, less than max_position_embeddings: attention to a part of a row is not "
            "computed; null or as long as rows may be is",
        )
    kinds = settings.take("layer_types", list, [])
    for kind in kinds or ():
        if kind != "full_attention":
            raise settings.error("layer_types", f"has {kind!r}; only 'full_attention' is known")
