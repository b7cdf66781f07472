"""The graphs of an exported folder, each loaded when it is first called."""

from pathlib import Path

import numpy as np
import onnxruntime

from taichu.errors import ExportError
from taichu.runtime.providers import Provider


class Sessions:
    """Runs graphs by their names.

    Args:
        folder: of the graphs.
        provider: what computes them.
        threads: of one graph; 0: as many as there are cores.
    """

    def __init__(self, folder: Path, provider: Provider, threads: int = 0):
        self.folder, self.provider, self.threads = folder, provider, threads
        self.loaded: dict[str, onnxruntime.InferenceSession] = {}

    def __call__(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs of a graph."""
        return self.load(name).run(None, inputs)

    def load(self, name: str) -> onnxruntime.InferenceSession:
        """The session of a graph.

        Raises:
            ExportError: the graph is missing or damaged.
        """
        if name not in self.loaded:
            path = self.folder / f"{name}.onnx"
            if not path.is_file():
                raise ExportError(f"{path}: no such file")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            try:
                session = onnxruntime.InferenceSession(
                    str(path), options, providers=list(self.provider.names)
                )
            except Exception as error:  # its own classes have no common base
                said = " ".join(str(error).split())
                raise ExportError(f"{path}: ONNX Runtime cannot load it: {said}") from None
            self.loaded[name] = session
        return self.loaded[name]
