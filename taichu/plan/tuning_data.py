"""Data that a model is to be tuned on, as far as the choice of a recipe needs it."""

import dataclasses
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from modality_adapters import create_adapter
from taichu.config import SIZES, load_size
from taichu.data.conversations.batches import ConversationBatches, ConversationsConfig
from taichu.data.conversations.conversation import MEDIA
from taichu.data.conversations.drawing import Drawing
from taichu.data.conversations.preference_batches import PairsConfig, PreferenceBatches
from taichu.data.conversations.prepared import (
    ConversationFile,
    PreferenceFile,
    prepare_conversations,
    prepare_preferences,
)
from taichu.data.conversations.reading import PREFERENCE, detect_format
from taichu.data.manifest import Sample, read_manifest
from taichu.errors import TuningError
from taichu.plan.tuning import Base, Lengths
from taichu.vocabulary import TEXT

LONGEST = 4096  # tokens of a row; what is longer is cut, of preferences left out
PREFERENCE_RATE = 1 / 8  # a preference is learned from what differs, and the model is to stay near


@dataclass(frozen=True)
class TuningData:
    """What is to be learned, and by which recipe.

    Attributes:
        reason: one line: the format, and how it is known.
        recipe: its name.
        lengths: of the samples.
        packed_by: the recipe's key that says how rows are packed.
        settings: of the recipe that follow from the data.
        rate: share of the learning rate that answers to be repeated would have.
    """

    reason: str
    recipe: str
    lengths: Lengths
    packed_by: str
    settings: dict = field(default_factory=dict)
    rate: float = 1.0


def look_at(path: Path | str, base: Base, recipe_of_new: dict, cache: str) -> TuningData:
    """Read data and choose the recipe.

    Args:
        path: a manifest, conversations or preferences.
        base: the model.
        recipe_of_new: settings of tune_new_modality as shipped.
        cache: folder of read media.

    Raises:
        TuningError: nothing of it can be learned. ConversationError, ManifestError: it cannot be
            read.
    """
    format, reason = detect_format(path)
    if format == "manifest":
        return _manifest(path, base, reason, recipe_of_new)
    if format == PREFERENCE:
        return _preferences(path, base, reason, cache)
    return _conversations(path, base, format, reason, cache)


def _conversations(path, base: Base, format: str, reason: str, cache: str) -> TuningData:
    file = ConversationFile(str(path), format)
    data = prepare_conversations((file,), base.config.modalities, cache)
    how = ConversationsConfig(rows=1, length=LONGEST, overlong="truncate")
    batches = ConversationBatches(data, base.vocabulary, base.adapters, base.template, how, 0)
    lengths = _drawn(batches.drawing)
    settings = {"data": [{"path": str(path), "format": format}], "validation": []}
    settings["conversations"] = {"overlong": "truncate"}
    return TuningData(reason, "tune_chat", lengths, "conversations", settings)


def _preferences(path, base: Base, reason: str, cache: str) -> TuningData:
    data = prepare_preferences((PreferenceFile(str(path)),), base.config.modalities, cache)
    how = base.template, PairsConfig(rows=2, length=LONGEST), 0
    batches = PreferenceBatches(data, base.vocabulary, base.adapters, *how)
    settings = {"data": [{"path": str(path)}], "validation": []}
    lengths = _drawn(batches.drawing)
    return TuningData(reason, "tune_preference", lengths, "pairs", settings, PREFERENCE_RATE)


def _drawn(drawing: Drawing) -> Lengths:
    return Lengths(
        samples=len(drawing.lengths),
        tokens=int(drawing.lengths.sum()),
        learned=int(drawing.targets.sum()),
        longest=int(drawing.lengths.max()),
    )


def _manifest(path, base: Base, reason: str, recipe_of_new: dict) -> TuningData:
    samples = [sample for sample in read_manifest(path, MEDIA) if sample.split == "train"]
    present = [name for name in MEDIA if any(name in sample.media for sample in samples)]
    new = [name for name in present if name not in base.adapters]
    if len(new) > 1:
        raise TuningError(f"{path}: the model has neither {' nor '.join(new)}; one at a time")
    settings: dict = {"manifest": str(path)}
    recipe, adapters = "tune_lora", dict(base.adapters)
    if new:
        recipe, present = "tune_new_modality", new
        settings |= {"modality": new[0], **settings_of(new[0], base, recipe_of_new)}
        adapters[new[0]] = create_adapter(new[0], settings["adapter"])
    groups = groups_of(samples, present)
    if not groups:
        raise TuningError(f"{path}: no row of the split train holds two of {(TEXT, *present)}")
    settings["mixture"] = {"groups": groups}
    lengths = _lengths(samples, groups, base, adapters)
    return TuningData(reason, recipe, lengths, "mixture", settings)


def settings_of(modality: str, base: Base, recipe: dict) -> dict:
    """A new modality's adapter and codec, of the shipped size of the nearest width that has it.

    Args:
        recipe: settings of tune_new_modality as shipped: of the modality that is its own, these.

    Raises:
        TuningError: nobody has it.
    """
    if recipe["modality"] == modality:
        return {"adapter": recipe["adapter"], "codec": recipe["codec"]}
    sizes = [load_size(path.stem) for path in sorted(SIZES.glob("*.yaml"))]
    having = [size for size in sizes if modality in size.modalities]
    if not having:
        raise TuningError(f"{modality}: no size has it; tune_new_modality wants its settings")
    size = min(having, key=lambda size: abs(size.width - base.config.width))
    codec = dataclasses.asdict(size.codecs[modality])
    return {"adapter": size.modalities[modality], "codec": codec}


def groups_of(samples: list[Sample], present: list[str]) -> dict[str, int]:
    """Text with each modality, and of data without text each two modalities; by their rows."""
    found = {}
    for name in present:
        count = sum(name in sample.media and bool(sample.texts) for sample in samples)
        if count:
            found[f"{TEXT}-{name}"] = count
    if found:
        return found
    for left, right in combinations(present, 2):
        count = sum(left in sample.media and right in sample.media for sample in samples)
        if count:
            found[f"{left}-{right}"] = count
    return found


def _lengths(samples: list[Sample], groups: dict, base: Base, adapters: dict) -> Lengths:
    """A sample has two segments a group: each side is observed, and the other decoded."""
    count = tokens = learned = longest = 0
    for sample in samples:
        said = [len(base.vocabulary.encode(text)) for _, text in sample.captions(0)]
        sizes = {name: adapters[name].geometry.tokens for name in sample.media if name in adapters}
        if said:
            sizes[TEXT] = max(said)
        for group in groups:
            sides = group.split("-")
            if all(side in sizes for side in sides):
                content = sum(sizes[side] for side in sides)
                count, learned = count + 1, learned + content
                tokens += 2 * (content + 4)
                longest = max(longest, content + 5)
    return Lengths(count, tokens, learned, longest)
