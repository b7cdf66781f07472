"""What a tower holds: names and shapes of its parameters, without making them."""

from taichu.config import ModelConfig, TowerConfig


def tower_prefixes(config: ModelConfig) -> dict[str, str]:
    """How the names of each tower's parameters begin in the backbone, by modality."""
    names = enumerate(config.modalities)
    return {name: f"patch_embedders.{n}.tower." for n, name in names if name in config.towers}


def tower_shapes(config: TowerConfig, tokens: int, patch_size: int) -> dict[str, tuple[int, ...]]:
    """Of a tower for grids of so many patches of so many values.

    Raises:
        ConfigError: it cannot read such grids.
    """
    config.check_grid(tokens, patch_size)
    W, C = config.width, config.channels
    found = {"place": (inside_tower(config, tokens, patch_size), W)}

    def linear(name: str, inputs: int, outputs: int, bias: bool = True):
        found[f"{name}.weight"] = outputs, inputs
        if bias:
            found[f"{name}.bias"] = (outputs,)

    def norm(name: str):
        found.update({f"{name}.weight": (W,), f"{name}.bias": (W,)})

    if config.kind == "whisper":
        linear("convolution_1", 3 * C, W)
        linear("convolution_2", 3 * W, W)
    else:
        clip = config.kind == "clip"
        linear("patches", patch_size, W, bias=not clip)
        if clip:
            found["start"] = (W,)
            norm("first_norm")
    for n in range(config.depth):
        layer = f"encoder.layers.{n}"
        norm(f"{layer}.attention_norm")
        for part in ("query", "key", "value", "output"):
            bias = part != "key" or config.kind != "whisper"
            linear(f"{layer}.attention.{part}", W, W, bias)
        norm(f"{layer}.feed_forward_norm")
        linear(f"{layer}.up", W, config.hidden)
        linear(f"{layer}.down", config.hidden, W)
    if config.last_norm:
        norm("encoder.norm")
    return found


def inside_tower(config: TowerConfig, tokens: int, patch_size: int) -> int:
    """Places of a grid that its layers see: CLIP's have one more, Whisper's are pooled later."""
    if config.kind == "whisper":
        return tokens * (patch_size // config.channels // 2)
    return tokens + (config.kind == "clip")


def projector_shapes(config: TowerConfig, width: int) -> dict[str, tuple[int, ...]]:
    """Of its projector to so wide blocks."""
    found = {"first.weight": (width, config.width), "first.bias": (width,)}
    if config.projector == "mlp":
        found |= {"second.weight": (width, width), "second.bias": (width,)}
    return found
