"""A student as it starts: its teacher made smaller (DistilBERT, 1910.01108, section 3)."""

import dataclasses

from taichu.config import ModelConfig, build
from taichu.errors import ConfigError
from taichu.inference.pretrained import Taichu
from taichu.storage.checkpoint import named_parameters, set_parameter

# what vocabulary and grids are made of, and where the weights are from
TEACHERS = (
    "pieces",
    "spare_pieces",
    "rows_multiple",
    "modalities",
    "codecs",
    "towers",
    "published",
)


def make_student(teacher: Taichu, changes: dict) -> Taichu:
    """A new model of the teacher's config with some of its fields changed.

    Parameters of the same shape start as the teacher's, those of blocks as `blocks_taken` says;
    the others are drawn. Tokenizer, adapters, codecs and chat template are the teacher's.

    Args:
        changes: `ModelConfig` fields by name, such as ``{"depth": 2}``.

    Raises:
        ConfigError: a field is unknown, of another type, must stay as it is, or asks for more
            blocks than the teacher has.
    """
    for key in changes:
        if key in TEACHERS:
            raise ConfigError(f"student.{key}: must stay the teacher's; leave it out")
    settings = dataclasses.asdict(teacher.config)
    config = build(ModelConfig, {**settings, **changes}, "student")
    if not 1 <= config.depth <= teacher.config.depth:
        raise ConfigError(
            f"student.depth={config.depth} must be from 1 to the teacher's {teacher.config.depth}"
        )
    student = Taichu(config, teacher.vocabulary.tokenizer)
    student.codecs, student.template = teacher.codecs, teacher.template
    held = named_parameters(teacher.backbone)
    taken = blocks_taken(config.depth, teacher.config.depth)
    for name, parameter in named_parameters(student.backbone).items():
        source = held.get(name_taken(name, taken))
        if source is not None and source.shape == parameter.shape:
            set_parameter(parameter, source.asnumpy())
    return student


def blocks_taken(depth: int, of: int) -> list[int]:
    """The teacher's blocks that a student of ``depth`` starts with: evenly, first and last among
    them where there is more than one; 6 of 12 are 0, 2, 4, 7, 9 and 11."""
    gaps = max(1, depth - 1)
    return [(2 * n * (of - 1) + gaps) // (2 * gaps) for n in range(depth)]


def name_taken(name: str, taken: list[int]) -> str:
    """What a student's parameter is called in the teacher."""
    part, _, rest = name.partition(".")
    if part != "blocks":
        return name
    number, _, rest = rest.partition(".")
    return f"blocks.{taken[int(number)]}.{rest}"
