"""Exported models on ONNX Runtime: no MindSpore, no PyTorch.

from taichu.runtime import Runtime
model = Runtime("exported")
model.embed(image="a.png"), model.generate(into="audio", text="seven")
"""

from taichu.runtime.providers import Provider, choose_provider
from taichu.runtime.runtime import Runtime

__all__ = ["Provider", "Runtime", "choose_provider"]
