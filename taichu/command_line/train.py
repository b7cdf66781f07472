"""Run a recipe: train as a YAML file says.

RECIPE is a YAML file, or the name of one that is shipped (see `taichu info`). Every key can be
set on the command line: key=value, inner.key=value. A run that was stopped goes on when the same
command is given again: SIGTERM and Ctrl-C end a training with a checkpoint, after its running step.
SIGUSR1 shows the stacks of all threads.

examples:
  taichu train codecs manifest=data/digits/manifest.jsonl out=runs/codecs
  taichu train pretrain manifest=data/digits/manifest.jsonl codecs=runs/codecs train.steps=500
  taichu train my/recipe.yaml --device CPU mixture.groups.text-image=2
  taichu train pretrain profile.steps=[10,12]
  taichu train pretrain --dry-run"""

import argparse
import dataclasses
import importlib
import importlib.util
from pathlib import Path

import yaml

from ascend.ranks import read_ranks
from taichu.config import apply_overrides, build, load_yaml, nearest
from taichu.errors import ConfigError
from taichu.training.hang_watch import show_stacks_when_asked


def add_options(parser: argparse.ArgumentParser):
    add_recipe(parser)
    parser.add_argument("--device", metavar="NAME", help="auto, Ascend, GPU or CPU; sets device=")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings with all defaults, and stop"
    )
    parser.set_defaults(run=run)


def add_recipe(parser: argparse.ArgumentParser):
    """What names a recipe, and changes to it."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a shipped one's name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to its keys")


def run(options: argparse.Namespace):
    show_stacks_when_asked()
    overrides = [*options.overrides]
    if options.device:
        overrides.append(f"device={options.device}")
    program, config = load_recipe(options.recipe, overrides, read_ranks().size)
    if options.dry_run:
        print(yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True), end="")
        return
    program.main(config)


def recipes_folder() -> Path:
    """Where the shipped recipes are."""
    spec = importlib.util.find_spec("recipes")  # by name: recipes stand above this package
    if spec is None:
        raise ConfigError("the package 'recipes' is not installed; reinstall taichu")
    return Path(next(iter(spec.submodule_search_locations)))


def shipped(suffix: str) -> list[str]:
    """Names of the shipped files of a kind: ".py" programs, ".yaml" settings."""
    files = recipes_folder().glob(f"*{suffix}")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def load_recipe(recipe: str, overrides: list[str], ranks: int = 1):
    """A recipe's program (a module with ``Config`` and ``main``) and its filled settings.

    Args:
        recipe: path of a YAML file, or the name of a shipped one.
        overrides: ``key=value``.
        ranks: that it is to be run by.

    Raises:
        ConfigError: no such recipe, or a wrong key or value, or it is not for several ranks.
    """
    path = find_yaml(recipe)
    content = apply_overrides(load_yaml(path), overrides)
    name, programs = content.pop("recipe", None), shipped(".py")
    if name is None:
        raise ConfigError(f"{path}: the key 'recipe' is missing; it names one of {programs}")
    if name not in programs:  # only these: data never decides which code is run
        hint = nearest(name, programs)
        raise ConfigError(f"{path}: recipe {name!r} is unknown{hint}; there are {programs}")
    program = importlib.import_module(f"recipes.{name}")
    instead = getattr(program, "ONE_PROCESS", None)
    if ranks > 1 and instead:
        raise ConfigError(
            f"{path}: recipe {name!r} runs in one process, not as {ranks} ranks; {instead}"
        )
    try:
        return program, build(program.Config, content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def find_yaml(recipe: str) -> Path:
    """The YAML file that is meant."""
    if recipe in shipped(".yaml"):
        return recipes_folder() / f"{recipe}.yaml"
    path = Path(recipe)
    if path.is_file():
        return path
    # recipes/pretrain.yaml is understood in any folder, as the recipes' launch lines say it
    if path.suffix == ".yaml" and path.parent == Path("recipes") and path.stem in shipped(".yaml"):
        return recipes_folder() / path.name
    hint = nearest(path.stem, shipped(".yaml"))
    raise ConfigError(f"{recipe}: no such file, nor a shipped recipe{hint}")


def as_plain(value):
    """A dataclass as what YAML can write."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: as_plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: as_plain(inner) for key, inner in value.items()}
    return [as_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
