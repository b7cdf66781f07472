"""What config.json and preprocessor_config.json of CLIP, SigLIP and Whisper mean for a tower and
its modality's adapter. The meaning of each key, and of its absence, is that of `transformers`."""

from dataclasses import dataclass
from pathlib import Path

from taichu.config import TowerConfig
from taichu.convert.families import SILENT_NAMES
from taichu.convert.settings import Settings
from taichu.errors import CheckpointError
from taichu.storage.model_folder import read_json

KINDS = {  # model_type -> the kind of tower
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "whisper": "whisper",
}
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
MODALITIES = {"clip": "image", "siglip": "image", "whisper": "audio"}  # that each kind reads

# keys that are known with one meaning only
ONLY = {"add_cross_attention": False, "chunk_size_feed_forward": 0}
ONLY |= {"pruned_heads": {}, "quantization_config": None}
ONLY_OF_IMAGES = ONLY | {"num_channels": 3, "is_encoder_decoder": False}
ONLY_OF_SOUNDS = ONLY | {"is_encoder_decoder": True, "scale_embedding": False}
# besides those of language models, keys that say nothing of what the encoder computes
SILENT = set(SILENT_NAMES.split()) | {
    "cross_attention_hidden_size",
    "dropout",
    "initializer_factor",
    "projection_dim",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "vision_use_head",
}
# of Whisper, those of its decoder, of its training and of what is made with it, too
SILENT_OF_SOUNDS = """
activation_dropout alignment_heads apply_spec_augment begin_suppress_tokens classifier_proj_size
decoder_attention_heads decoder_ffn_dim decoder_layerdrop decoder_layers decoder_start_token_id
encoder_layerdrop forced_decoder_ids init_std lang_ids mask_feature_length mask_feature_min_masks
mask_feature_prob mask_time_length mask_time_min_masks mask_time_prob max_target_positions
median_filter_width num_hidden_layers use_weighted_layer_sum vocab_size
"""
FORM = {"clip": "crop", "siglip": "stretch"}  # of the image adapter
COLOURS = {  # mean and deviation where preprocessor_config.json is missing
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "siglip": ([0.5] * 3, [0.5] * 3),
}
SOUND = {"sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}


@dataclass(frozen=True)
class TowerChoice:
    """What is asked for."""

    folder: str  # config.json, safetensors and, where it is, preprocessor_config.json
    projector: str = "mlp"  # linear or mlp
    frozen: bool = True
    # that are run; LLaVA (2304.08485, section 4.1) reads CLIP before its last; none: all of others
    layers: int | None = None
    pooled: int = 10  # of Whisper, outputs of the encoder that one token is the mean of


@dataclass(frozen=True)
class TowerSettings:
    """A published encoder's.

    Attributes:
        tower: as a model folder's config.json holds it.
        adapter: settings of its modality's adapter.
        published_depth: layers that it has, of which the tower may run fewer.
    """

    tower: TowerConfig
    adapter: dict
    published_depth: int

    @property
    def modality(self) -> str:
        return MODALITIES[self.tower.kind]


def tower_settings(choice: TowerChoice) -> TowerSettings:
    """Read a published folder's settings.

    Raises:
        CheckpointError: a file is missing or malformed, or asks for what our towers do not compute.
        ConfigError: what is chosen does not fit it.
    """
    folder = Path(choice.folder)
    path = folder / "config.json"
    content = read_json(path)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise CheckpointError(
            f"{path}: model_type is {kind!r}; of a tower it must be one of {known}"
        )
    settings = Settings(content, path)
    if KINDS[kind] == "whisper":
        return _whisper(settings, folder, choice)
    if kind in ("clip", "siglip"):
        settings = Settings(settings.take("vision_config", dict), path, "vision_config.")
    return _vision(settings, folder, KINDS[kind], choice)


def _vision(settings: Settings, folder: Path, kind: str, choice: TowerChoice) -> TowerSettings:
    clip, published = kind == "clip", settings.count("num_hidden_layers", 12)
    depth = _depth(settings, "num_hidden_layers", published, choice, published - clip)
    width, size = settings.count("hidden_size", 768), settings.count("image_size", 224)
    patch = settings.count("patch_size", 32 if clip else 16)
    mean, deviation = _colours(folder, kind, size)
    tower = TowerConfig(
        width=width,
        depth=depth,
        heads=_heads(settings, "num_attention_heads", 12, width),
        hidden=settings.count("intermediate_size", 3072),
        activation=_activation(
            settings, "hidden_act", "quick_gelu" if clip else "gelu_pytorch_tanh"
        ),
        norm_epsilon=settings.positive("layer_norm_eps", 1e-5 if clip else 1e-6),
        channels=3,
        # of colours from 0 to 1; the grid's are from -1 to 1
        mean=tuple(2 * value - 1 for value in mean),
        deviation=tuple(2 * value for value in deviation),
        last_norm=not clip and depth == published,
        kind=kind,
        projector=choice.projector,
        frozen=choice.frozen,
    )
    _refuse_rest(settings, ONLY_OF_IMAGES, SILENT)
    seen = size // patch * patch  # of SigLIP's 384 pixels, patches of 14 cover 378
    if not seen or (clip and seen != size):
        raise settings.error("patch_size", f"is {patch}; it must divide image_size={size}")
    adapter = {"form": FORM[kind], "shape": [1, seen, seen, 3]}
    adapter |= {"patch": [1, patch, patch]} | ({"side": size} if seen != size else {})
    return TowerSettings(tower, adapter, published)


def _depth(settings: Settings, key: str, published: int, choice: TowerChoice, default: int) -> int:
    """Layers that are run."""
    depth = default if choice.layers is None else choice.layers
    if not 1 <= depth <= published:
        raise settings.error(key, f"is {published}; {depth} layers cannot be run")
    return depth


def _heads(settings: Settings, key: str, default: int, width: int) -> int:
    heads = settings.count(key, default)
    if width % heads:
        raise settings.error(key, f"is {heads}; it must divide {width}")
    return heads


def _colours(folder: Path, kind: str, size: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of the colours, from 0 to 1, by preprocessor_config.json, whose other
    settings must be what the adapter does."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return COLOURS[kind]
    settings = Settings(read_json(path), path)
    sides = {"height": size, "width": size}
    sizes = [size, sides]
    known = {"do_resize": [True], "do_rescale": [True], "do_normalize": [True], "resample": [3]}
    known |= {"rescale_factor": [1 / 255]}
    if kind == "clip":
        known |= {"do_center_crop": [True], "crop_size": sizes}
        known |= {"size": [size, {"shortest_edge": size}]}
    else:
        known |= {"do_center_crop": [False, None], "size": sizes}
    for key, values in known.items():
        given = settings.take(key, object, values[0])
        if given not in values:
            raise settings.error(key, f"is {given!r}; only {values[0]!r} is known")
    found = []
    for key, default in zip(("image_mean", "image_std"), COLOURS[kind]):
        values = settings.take(key, list, default)
        if len(values) != 3 or not all(type(v) in (int, float) and 0 <= v <= 1 for v in values):
            raise settings.error(key, f"is {values!r}; it must be 3 numbers from 0 to 1")
        found.append(values)
    if not all(found[1]):
        raise settings.error("image_std", f"is {found[1]!r}; it must be above 0")
    return found[0], found[1]


def _whisper(settings: Settings, folder: Path, choice: TowerChoice) -> TowerSettings:
    path, published = folder / "preprocessor_config.json", settings.count("encoder_layers", 4)
    depth, pooled = _depth(settings, "encoder_layers", published, choice, published), choice.pooled
    bands, width = settings.count("num_mel_bins", 80), settings.count("d_model", 384)
    positions = settings.count("max_source_positions", 1500)
    if pooled < 1 or positions % pooled:
        raise settings.error(
            "max_source_positions", f"is {positions}, which {pooled} does not divide"
        )
    tower = TowerConfig(
        width=width,
        depth=depth,
        heads=_heads(settings, "encoder_attention_heads", 6, width),
        hidden=settings.count("encoder_ffn_dim", 1536),
        activation=_activation(settings, "activation_function", "gelu"),
        norm_epsilon=1e-5,
        channels=bands,
        deviation=(0.5,),  # the adapter's values are half of Whisper's
        last_norm=depth == published,
        kind="whisper",
        projector=choice.projector,
        frozen=choice.frozen,
    )
    _refuse_rest(settings, ONLY_OF_SOUNDS, SILENT | set(SILENT_OF_SOUNDS.split()))
    if path.is_file():
        sound = Settings(read_json(path), path)
        for key, value in {**SOUND, "feature_size": bands}.items():
            if sound.take(key, object, value) != value:
                raise sound.error(key, f"is {sound.content[key]!r}; it must be {value}")
    shape, patch = [2 * positions, 1, bands, 1], [2 * pooled, 1, bands]
    return TowerSettings(tower, {"form": "whisper", "shape": shape, "patch": patch}, published)


def _refuse_rest(settings: Settings, only: dict, silent: set[str]):
    for key, value in only.items():
        given = settings.take(key, object, value)
        if given is not None and given != value:
            raise settings.error(key, f"is {given!r}; only {value!r} is known")
    settings.refuse_rest(silent)


def _activation(settings: Settings, key: str, default: str) -> str:
    name = settings.take(key, str, default)
    if name not in ACTIVATIONS:
        raise settings.error(key, f"is {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
