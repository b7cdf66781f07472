"""Settings: dataclasses filled from YAML and ``key=value`` overrides; unknown keys are refused."""

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path

import yaml

from taichu.errors import ConfigError

SIZES = Path(__file__).parent / "sizes"
CODEC_HEAD_SIZE = 32
TOWER_WORDS = {
    "kind": ("clip", "siglip", "whisper"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu"),
    "projector": ("linear", "mlp"),
}


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """A grid modality's codec; see `taichu.model.codec.Codec`."""

    levels: tuple[int, ...]  # values a code's digit takes; their product is the number of codes
    width: int = 128  # of a token inside encoder and decoder
    depth: int = 2  # mixing blocks in the encoder, and again in the decoder

    @property
    def codes(self) -> int:
        count = 1
        for level in self.levels:
            count *= level
        return count

    @property
    def blocks(self) -> "ModelConfig":
        """Sizes of the blocks of encoder and decoder."""
        return ModelConfig(
            width=self.width,
            depth=2 * self.depth,
            heads=self.width // CODEC_HEAD_SIZE,
            key_value_heads=self.width // CODEC_HEAD_SIZE,
            head_size=CODEC_HEAD_SIZE,
            hidden=2 * self.width,
            embedding=0,
            pieces=0,
        )


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A published encoder between a modality's patches and the blocks; see `taichu.model.towers`.

    It reads (value - mean) / deviation of a grid's values, which are in [-1, 1].
    """

    kind: str  # clip, siglip or whisper
    width: int  # of a token inside
    depth: int  # layers that are run; CLIP is read before its last one
    heads: int  # divides width
    hidden: int  # width of a layer's feed-forward part
    activation: str  # of that part: gelu, gelu_tanh or quick_gelu
    norm_epsilon: float
    channels: int  # values at each place of the grid: colours, or mel bands
    mean: tuple[float, ...] = (0.0,)  # one, or one a channel
    deviation: tuple[float, ...] = (1.0,)
    last_norm: bool = True  # whether what the last layer gives is normalised
    projector: str = "mlp"  # to the blocks' width: linear, or mlp (of two layers)
    frozen: bool = True  # whether training leaves its weights, but for the projector's, as they are

    def __post_init__(self):
        for key, known in TOWER_WORDS.items():
            value = getattr(self, key)
            if value not in known:
                hint = nearest(value, known)
                raise ConfigError(f"towers: {key}={value!r} must be {', '.join(known)}{hint}")
        for key in ("width", "depth", "heads", "hidden", "channels"):
            if getattr(self, key) < 1:
                raise ConfigError(f"towers: {key}={getattr(self, key)} must be at least 1")
        if self.width % self.heads:
            raise ConfigError(f"towers: heads={self.heads} must divide width={self.width}")
        for key in ("mean", "deviation"):
            if len(getattr(self, key)) not in (1, self.channels):
                raise ConfigError(f"towers: {key} must hold 1 value, or {self.channels}")
        if not all(value > 0 for value in (self.norm_epsilon, *self.deviation)):
            raise ConfigError("towers: norm_epsilon and deviation must be more than 0")

    def check_grid(self, tokens: int, patch_size: int):
        """That it can read grids of so many patches of so many values.

        Raises:
            ConfigError: it cannot.
        """
        places, left = divmod(patch_size, self.channels)
        if left or (self.kind == "whisper" and places % 2):
            wanted = f"a multiple of {self.channels * (2 if self.kind == 'whisper' else 1)}"
            raise ConfigError(
                f"towers: {self.kind} wants patches of {wanted} values, not of {patch_size}"
            )


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the rotary position of a published model was stretched to longer rows.

    Pairs of features that turn slowly turn ``factor`` times slower; see
    `taichu.model.rotary_frequencies`.
    """

    kind: str  # linear: all pairs alike; llama3, yarn (2309.00071): those that turn slowly
    factor: float
    length: int = 0  # of rows before; where not linear, a pair's turns are counted over it
    slow: float = 1.0  # turns up to which a pair is slowed by the whole factor
    fast: float = 32.0  # turns from which a pair stays as it is
    whole_pairs: bool = True  # whether yarn rounds the pairs that turn so often to whole numbers
    size: float = 1.0  # what yarn multiplies turned queries and keys by

    def __post_init__(self):
        if self.kind not in ("linear", "llama3", "yarn"):
            raise ConfigError(f"rope_scaling.kind={self.kind!r} must be linear, llama3 or yarn")
        numbers = (self.factor, self.size, self.slow, self.fast)
        if not all(math.isfinite(x) and x > 0 for x in numbers):
            raise ConfigError("rope_scaling: factor, size, slow and fast must be more than 0")
        if self.kind != "linear" and (self.length < 1 or self.slow >= self.fast):
            raise ConfigError(
                f"rope_scaling: length={self.length} must be at least 1, and slow={self.slow} less "
                f"than fast={self.fast}"
            )


@dataclasses.dataclass(frozen=True)
class Published:
    """What is remembered of a published model so that it can be written back."""

    config: dict  # its config.json
    kind: str  # of its tensors: BF16, F16 or F32
    other_kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # by tensor, if another
    head_copied: bool = False  # whether a tied head was written besides the table


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The backbone, its vocabulary and its modalities. A model folder's config.json is this."""

    width: int  # D
    depth: int  # blocks
    heads: int  # H
    key_value_heads: int  # G; divides heads
    head_size: int  # K
    hidden: int  # width of the SwiGLU layer, or of each expert
    embedding: int  # width of the shared embedding space
    pieces: int  # text pieces of the vocabulary (upper bound while a tokenizer is trained)
    spare_pieces: int = 0  # of them, those that no text has, behind the tokenizer's
    rows_multiple: int = 1  # the id table's rows are filled up to a multiple of it
    query_key_norm: bool = True  # RMSNorm on queries and keys (Qwen3)
    bias: bool = False  # on query, key and value (Qwen2)
    tied: bool = True  # decoding head shares the id table
    scaled_ids: bool = True  # looked-up vectors are multiplied by sqrt(width)
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_axes: tuple[float, float, float] = (0.4, 0.3, 0.3)  # share of the pairs for t, y, x
    norm_epsilon: float = 1e-6
    experts: int = 0  # SwiGLU layers of each block that tokens choose from; 0: one for all tokens
    active_experts: int = 2  # of them that a token chooses
    expert_capacity: float = 1.25  # tokens that an expert has room for, times its mean load
    modalities: dict[str, dict] = dataclasses.field(default_factory=dict)  # adapters' settings
    codecs: dict[str, CodecConfig] = dataclasses.field(default_factory=dict)
    towers: dict[str, TowerConfig] = dataclasses.field(default_factory=dict)  # of some modalities
    published: Published | None = None  # where the weights are from, if they were converted

    def __post_init__(self):
        if self.heads % self.key_value_heads:
            raise ConfigError(
                f"key_value_heads={self.key_value_heads} must divide heads={self.heads}"
            )
        if self.rows_multiple < 1:
            raise ConfigError(f"rows_multiple={self.rows_multiple} must be at least 1")
        if self.spare_pieces < 0:
            raise ConfigError(f"spare_pieces={self.spare_pieces} must be at least 0")
        if self.head_size % 2:
            raise ConfigError(f"head_size={self.head_size} must be even")
        # of one expert alone the weight is always 1, and teaches the router nothing
        if self.experts and not 2 <= self.active_experts <= self.experts:
            raise ConfigError(
                f"active_experts={self.active_experts} must be from 2 to experts={self.experts}"
            )
        if self.experts < 0 or self.expert_capacity <= 0:
            raise ConfigError("experts must be 0 or more, expert_capacity more than 0")
        if set(self.modalities) != set(self.codecs):
            raise ConfigError(
                f"modalities {sorted(self.modalities)} and codecs {sorted(self.codecs)} differ"
            )
        for name in set(self.towers) - set(self.modalities):
            raise ConfigError(f"towers.{name}: there is no such modality")

    @property
    def code_counts(self) -> dict[str, int]:
        """How many codes each grid modality has."""
        return {name: codec.codes for name, codec in self.codecs.items()}

    @property
    def id_scale(self) -> float:
        """What looked-up vectors are multiplied by."""
        return self.width**0.5 if self.scaled_ids else 1.0

    @property
    def rotary_size(self) -> float:
        """What turned queries and keys are multiplied by."""
        return self.rope_scaling.size if self.rope_scaling else 1.0

    def tower_of(self, number: int) -> TowerConfig | None:
        """Of the grid modality of a number, in order, if it has one."""
        return self.towers.get(list(self.modalities)[number]) if self.towers else None

    def table_rows(self, vocabulary_size: int) -> int:
        """Rows of the id table of a joint vocabulary of so many ids.

        Replicas share out rows where their number divides them (ZeRO), which that of ids need not.
        """
        return -(-vocabulary_size // self.rows_multiple) * self.rows_multiple


def load_yaml(path: Path | str) -> dict:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values")
    return content


def apply_overrides(content: dict, overrides: list[str]) -> dict:
    """Set ``a.b=value`` in a nested mapping; values are read as YAML. Returns a new mapping."""
    content = _copy(content)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r}: an override is written key=value")
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            if place.get(parent) is None:  # null may stand where keys can
                place[parent] = {}
            if not isinstance(place[parent], dict):
                raise ConfigError(f"{key}: {parent} holds a value, not keys")
            place = place[parent]
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{override!r}: the value is not YAML") from None
    return content


def build(cls: type, content: dict, where: str = ""):
    """Fill a dataclass from a mapping.

    Raises:
        ConfigError: an unknown key (with the nearest right one), a missing key, or a value of
            another type than the field's.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where or cls.__name__}: must hold keys and values, not {content!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in content:
        if key not in fields:
            raise ConfigError(f"{_join(where, key)}: unknown key{nearest(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in content:
            values[name] = _convert(hints[name], content[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(where, name)}: missing")
    return cls(**values)


def load_size(name: str, **changes) -> ModelConfig:
    """Read one of the shipped model sizes, or a YAML file of the same form.

    Raises:
        ConfigError: no such size.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SIZES / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in SIZES.glob("*.yaml"))
        raise ConfigError(
            f"model size {name!r} is unknown{nearest(name, known)}; there are {known}"
        )
    return build(ModelConfig, {**load_yaml(path), **changes}, where=path.name)


def nearest(name: str, known) -> str:
    """A hint ``; did you mean 'x'?`` where a known name is near, else nothing."""
    matches = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.4)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _convert(kind, value, where: str):
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [kind for kind in arguments if kind is not type(None)]
        return _convert(type(value) if type(value) in kinds else kinds[0], value, where)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must hold keys and values, not {value!r}")
        inner = arguments[1] if arguments else None
        if inner is None:
            return value
        return {str(k): _convert(inner, v, _join(where, k)) for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: must be a list, not {value!r}")
        inner = arguments[0]
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise ConfigError(f"{where}: must hold {len(arguments)} values, not {len(value)}")
        return tuple(_convert(inner, v, f"{where}[{i}]") for i, v in enumerate(value))
    if kind is float and isinstance(value, str):
        try:  # YAML reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise ConfigError(f"{where}: must be {kind.__name__}, not {value!r}")
    return value


def _join(where: str, key) -> str:
    return f"{where}.{key}" if where else str(key)


def _copy(content):
    return {k: _copy(v) for k, v in content.items()} if isinstance(content, dict) else content
