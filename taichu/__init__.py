"""taichu: unified models of text, image, audio, video and 3D on MindSpore.

from taichu import Taichu
model = Taichu.from_pretrained("runs/demo/model")
model.embed(text="a red seven"), model.generate(into="image", text="a red seven", seed=1)
"""

import importlib

import ascend  # noqa: F401  (quiets MindSpore and brings CUDA, before MindSpore is imported)

__version__ = "0.1.0"
HOMES = {"Taichu": "taichu.inference.pretrained", "Sampling": "taichu.inference.sampling"}


def __getattr__(name: str):
    # MindSpore takes seconds to import, and who only uses exported models may not have it
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module 'taichu' has no attribute {name!r}")
