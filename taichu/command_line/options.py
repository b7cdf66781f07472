"""Options that several commands share, and what they stand for."""

import argparse
import sys
from pathlib import Path

from modality_adapters import ADAPTERS


def add_device(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, Ascend, GPU or CPU; of an exported folder auto, cuda or cpu (default auto)",
    )


def add_inputs(parser: argparse.ArgumentParser, repeatable: bool):
    """One option a modality: --text STRING, --image FILE, ..."""
    group = parser.add_argument_group("what is given")
    action = "append" if repeatable else "store"
    again = "; may be repeated" if repeatable else ""
    for name, adapter in ADAPTERS.items():
        what = "STRING" if name == "text" else "FILE"
        kinds = "" if name == "text" else f"{', '.join(adapter.suffixes)}"
        group.add_argument(
            f"--{name}", action=action, metavar=what, help=(kinds or "a text") + again
        )


def inputs(options: argparse.Namespace) -> dict:
    """Modality -> what was given for it, the modalities that were given only."""
    given = {name: getattr(options, name) for name in ADAPTERS}
    return {name: value for name, value in given.items() if value is not None}


def load_model(options: argparse.Namespace, folder: str | None = None):
    """Choose the device, say so on stderr, and load a model folder, or one that was exported; by
    default the one that the options name."""
    from taichu.inference.exported_model import exported_format

    folder = folder or options.folder
    graphs = exported_format(folder)
    if graphs not in (None, "mindir"):
        from taichu.runtime import Runtime

        model = Runtime(folder, options.device)
        print(model.provider.reason, file=sys.stderr)
        return model
    from ascend.device import choose_device
    from ascend.precision import choose_precision

    print(choose_device(options.device).reason, choose_precision(), sep="\n", file=sys.stderr)
    if graphs == "mindir":
        from taichu.inference.mindir_model import MindirModel

        return MindirModel(folder)
    from taichu.inference.pretrained import Taichu

    return Taichu.from_pretrained(folder)


def load_model_of(index, options: argparse.Namespace):
    """Load the model that made an index, from where it was or from ``--model``.

    Raises:
        IndexFolderError: it is not known or not there, or the folder holds another model.
    """
    from taichu.errors import IndexFolderError
    from taichu.index.origin import Origin

    if index.origin is None:
        raise IndexFolderError(f"{options.folder}: does not say which model made its vectors")
    folder = options.model or index.origin.folder
    if not Path(folder).is_dir():
        raise IndexFolderError(f"{folder}: no such model; --model FOLDER says where it is now")
    model = load_model(options, folder)
    index.origin.check(Origin.of(model, folder), options.folder)
    return model
