"""Files <-> grids <-> patches: everything that knows a media format lives here.

`create_adapter("image", {"shape": [1, 32, 32, 3], "patch": [1, 8, 8]})` gives an adapter; its
`read` and `write` go between files and grids, its `geometry` between grids and patches. A module
of this package that names a class `ADAPTER` adds that modality; nothing else need change. Of one
modality there may be several, of which the setting `form` chooses.
"""

import difflib
import importlib
import os
import pkgutil
from dataclasses import fields

# The C libraries behind OpenCV print about damaged files, which MediaError reports. They look at
# these variables when OpenCV is loaded, so they are set before any module of ours is. Both are
# defaults only: who sets them sees the libraries' words again.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from modality_adapters.errors import MediaError
from modality_adapters.grid import GridGeometry


def _find_adapters() -> dict[str, type]:
    modules = (
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    )
    found = [module.ADAPTER for module in modules if hasattr(module, "ADAPTER")]
    forms: dict[str, dict[str, type]] = {}
    for adapter in found:
        forms.setdefault(adapter.name, {})[getattr(adapter, "form", "")] = adapter
    return forms


FORMS: dict[str, dict[str, type]] = _find_adapters()
ADAPTERS: dict[str, type] = {name: forms[""] for name, forms in FORMS.items()}


def create_adapter(name: str, settings: dict):
    """The adapter of a modality with settings such as {"shape": [...], "patch": [...]}.

    Raises ValueError for an unknown modality or setting, naming the nearest right one, and for
    values that do not fit.
    """
    if name not in ADAPTERS:
        raise ValueError(f"unknown modality '{name}'; {_nearest(name, ADAPTERS)}")
    settings = dict(settings)
    form = settings.pop("form", "")
    if form not in FORMS[name]:
        raise ValueError(f"{name}: unknown form '{form}'; {_nearest(form, FORMS[name])}")
    adapter = FORMS[name][form]
    names = [field.name for field in fields(adapter)]
    with_geometry = "geometry" in names
    known = (["shape", "patch"] if with_geometry else []) + [n for n in names if n != "geometry"]
    for key in settings:
        if key not in known:
            raise ValueError(f"{name}: unknown setting '{key}'; {_nearest(key, known)}")
    if with_geometry:
        missing = [key for key in ("shape", "patch") if key not in settings]
        if missing:
            raise ValueError(f"{name}: setting '{missing[0]}' is missing")
        shape, patch = settings.pop("shape"), settings.pop("patch")
        settings["geometry"] = GridGeometry(tuple(shape), tuple(patch))
    return adapter(**settings)


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"


__all__ = ["ADAPTERS", "GridGeometry", "MediaError", "create_adapter"]
