"""A published model's rotary position: ``rope_parameters``, or ``rope_theta`` and ``rope_scaling``
as they were written before `transformers` 5."""

import math

from taichu.config import RopeScaling
from taichu.convert.settings import Settings

BASE = 10000.0  # where none is named, in all families


def read_rope(settings: Settings, longest: int | None) -> dict:
    """``rope_base`` and ``rope_scaling`` of `taichu.config.ModelConfig`.

    Args:
        settings: of the model.
        longest: its max_position_embeddings.

    Raises:
        CheckpointError: a key is malformed or unknown, or the frequencies are not fixed numbers.
    """
    parts = {key: settings.take(key, dict, None) for key in ("rope_parameters", "rope_scaling")}
    given = {key: content for key, content in parts.items() if content}
    if len(given) > 1 and len(set(map(repr, given.values()))) > 1:
        raise settings.error("rope_scaling", "and rope_parameters differ; delete one of them")
    key, content = next(iter(given.items()), ("rope_parameters", {}))
    inner = Settings(content, settings.where, f"{key}.")
    base = settings.positive("rope_theta", BASE)
    own_base = inner.positive("rope_theta", base)
    if own_base != base and "rope_theta" in settings.content:
        raise settings.error("rope_theta", f"is {base}, and {own_base} in {key}; delete one")
    kind, old_kind = (inner.take(name, str, None) for name in ("rope_type", "type"))
    kind = kind or old_kind or "default"
    if old_kind not in (None, kind):
        raise inner.error("type", f"is {old_kind!r}, and rope_type {kind!r}; delete one of them")
    if inner.positive("partial_rotary_factor", 1.0) != 1:
        raise inner.error("partial_rotary_factor", "is not 1: heads are turned whole")
    if kind not in READERS:
        why = "; its frequencies hang on a row's length" * (kind in ("dynamic", "longrope"))
        known = ", ".join(READERS)
        raise inner.error("rope_type", f"is {kind!r}{why}; it must be one of {known}")
    scaling = READERS[kind](inner, longest)
    inner.refuse_rest()
    return {"rope_base": own_base, "rope_scaling": scaling}


def _default(inner: Settings, longest: int | None) -> None:
    return None


def _linear(inner: Settings, longest: int | None) -> RopeScaling:
    return RopeScaling("linear", inner.positive("factor"))


def _llama3(inner: Settings, longest: int | None) -> RopeScaling:
    slow, fast = inner.positive("low_freq_factor"), inner.positive("high_freq_factor")
    if slow >= fast:
        raise inner.error("low_freq_factor", f"is {slow}; it must be below {fast}")
    length = _length_before(inner, longest)
    return RopeScaling("llama3", inner.positive("factor"), length, slow, fast)


def _yarn(inner: Settings, longest: int | None) -> RopeScaling:
    factor, length = inner.positive("factor"), _length_before(inner, longest)
    slow, fast = inner.positive("beta_slow", 1.0), inner.positive("beta_fast", 32.0)
    if slow >= fast:
        raise inner.error("beta_slow", f"is {slow}; it must be below {fast}")
    whole = bool(inner.take("truncate", bool, True))
    wanted = {name: inner.take(name, object, None) for name in ("mscale", "mscale_all_dim")}

    def growth(name: str) -> float:  # equation 22, times a factor of the model's own
        own = inner.positive(name) if all(wanted.values()) else 1.0
        return 1.0 if factor <= 1 else 0.1 * own * math.log(factor) + 1.0

    if inner.take("attention_factor", object, None) is not None:
        size = inner.positive("attention_factor")
    elif all(wanted.values()):
        size = growth("mscale") / growth("mscale_all_dim")
    else:
        size = growth("mscale")
    return RopeScaling("yarn", factor, length, slow, fast, whole, size)


def _length_before(inner: Settings, longest: int | None) -> int:
    length = inner.count("original_max_position_embeddings", longest)
    if length is None:
        raise inner.error("original_max_position_embeddings", "is missing")
    return length


READERS = {"default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn}
