"""The files of a published sentence encoder, key by key and tensor by tensor."""

from pathlib import Path

from taichu.convert.families import SILENT_NAMES
from taichu.convert.settings import Settings
from taichu.convert.sharded_tensors import find_tensors, require_tensor
from taichu.errors import CheckpointError
from taichu.model.bert import BertConfig
from taichu.storage.model_folder import read_json
from taichu.storage.tensor_stream import StoredTensor
from taichu.tokenizer import MOST_BYTES

SILENT = set(SILENT_NAMES.split()) | {
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "tie_word_embeddings",
}
# keys that are known with one meaning only
ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "add_cross_attention": False}
ONLY |= {"is_decoder": False, "pruned_heads": {}, "chunk_size_feed_forward": 0}
# ours -> theirs, of a layer and of what comes before
LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
TOP = {
    "pieces": "embeddings.word_embeddings.weight",
    "places": "embeddings.position_embeddings.weight",
    "kinds": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}


def read_sentence_encoder(folder: Path):
    """(sizes, tensors by our names, tokenizer, most tokens of a sentence); see `SentenceEncoder`.

    Raises:
        CheckpointError: a file is missing, damaged, or asks for what is not computed.
    """
    config = _read_config(folder / "config.json")
    pooling = folder / "1_Pooling" / "config.json"
    for key, value in read_json(pooling).items():
        wanted = key == "pooling_mode_mean_tokens"
        if key.startswith("pooling_mode_") and value is not wanted:
            raise CheckpointError(
                f"{pooling}: {key} is {value!r}; only the mean of tokens is known"
            )
    longest = config.positions
    path = folder / "sentence_bert_config.json"
    if path.is_file():
        longest = min(longest, Settings(read_json(path), path).count("max_seq_length", longest))
    tokenizer = _read_tokenizer(folder / "tokenizer.json", config.pieces, longest)
    return config, _tensors(folder, config), tokenizer, longest


def _read_config(path: Path) -> BertConfig:
    content = read_json(path)
    if content.get("model_type") != "bert":
        raise CheckpointError(
            f"{path}: model_type is {content.get('model_type')!r}; it must be bert"
        )
    settings = Settings(content, path)
    config = BertConfig(
        width=settings.count("hidden_size", 768),
        depth=settings.count("num_hidden_layers", 12),
        heads=settings.count("num_attention_heads", 12),
        hidden=settings.count("intermediate_size", 3072),
        pieces=settings.count("vocab_size", 30522),
        positions=settings.count("max_position_embeddings", 512),
        kinds=settings.count("type_vocab_size", 2),
        norm_epsilon=settings.positive("layer_norm_eps", 1e-12),
    )
    if config.width % config.heads:
        raise settings.error(
            "num_attention_heads", f"is {config.heads}; it must divide {config.width}"
        )
    for key, value in ONLY.items():
        given = settings.take(key, object, value)
        if given is not None and given != value:
            raise settings.error(key, f"is {given!r}; only {value!r} is known")
    settings.refuse_rest(SILENT)
    return config


def _read_tokenizer(path: Path, pieces: int, longest: int):
    import tokenizers  # of the extra "tokenizers"

    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"{path}: no such file, or larger than {MOST_BYTES >> 20} MiB")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises no classes of its own
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: not a tokenizer of the package tokenizers ({said})"
        ) from None
    if tokenizer.get_vocab_size() > pieces:
        raise CheckpointError(
            f"{path}: has {tokenizer.get_vocab_size()} pieces, more than {pieces}"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def _tensors(folder: Path, config: BertConfig) -> dict[str, StoredTensor]:
    tensors, found, read = find_tensors(folder, ("position_ids",)), {}, set()
    if config.depth > len(tensors):  # of which names alone would fill the memory
        layers = f"{config.depth:,} layers"
        raise CheckpointError(f"{folder}: config.json names {layers}, of {len(tensors)} tensors")
    prefix = "bert." if f"bert.{TOP['pieces']}" in tensors else ""
    for ours, (theirs, shape) in _names(config).items():
        name = prefix + theirs
        found[ours] = require_tensor(tensors, name, shape, folder)
        read.add(name)
    for name in sorted(set(tensors) - read):
        if not name.startswith((f"{prefix}pooler.", "cls.")):  # which sentences have no use for
            raise CheckpointError(f"{tensors[name].path}: tensor {name!r}: it is not part of bert")
    return found


def _names(config: BertConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our name -> theirs, and the shape."""
    W, F = config.width, config.hidden
    shapes = {"pieces": (config.pieces, W), "places": (config.positions, W)}
    shapes |= {"kinds": (config.kinds, W), "norm.weight": (W,), "norm.bias": (W,)}
    found = {ours: (theirs, shapes[ours]) for ours, theirs in TOP.items()}
    for n in range(config.depth):
        for ours, theirs in LAYER.items():
            shape = {"up": (F, W), "down": (W, F)}.get(ours, (W, W))
            weight = (W,) if ours.endswith("norm") else shape
            start, their_start = f"layers.{n}.{ours}", f"encoder.layer.{n}.{theirs}"
            found[f"{start}.weight"] = f"{their_start}.weight", weight
            found[f"{start}.bias"] = f"{their_start}.bias", weight[:1]
    return found
