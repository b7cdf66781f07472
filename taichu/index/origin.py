"""The model that made an index, and whether another folder is the same model."""

import json
from dataclasses import dataclass

import numpy as np

from taichu.errors import IndexFolderError
from taichu.vocabulary import TEXT

SAME = 0.999  # cosine of what one model makes of one thing on any device, at least


@dataclass(frozen=True)
class Origin:
    """Known by what it does: a model that embeds the same things alike may be asked, whatever
    format its folder is of and whatever computes it.

    Attributes:
        folder: the model's.
        modalities: its grid modalities' settings.
        vectors: (m, C) float32, what it makes of a fixed text, and of a fixed grid of each
            modality.
    """

    folder: str
    modalities: dict
    vectors: np.ndarray

    @classmethod
    def of(cls, model, folder: str) -> "Origin":
        """Ask a model.

        Args:
            model: a `UnifiedModel`.
            folder: that it was loaded from.
        """
        contents = [{TEXT: "7 seven 七"}]
        for name, adapter in model.adapters.items():
            shape = adapter.geometry.shape
            wave = np.cos(0.1 * np.arange(np.prod(shape)))
            contents.append({name: wave.reshape(shape).astype(np.float16)})
        settings = {name: adapter.settings() for name, adapter in model.adapters.items()}
        settings = json.loads(json.dumps(settings))  # as they will be read back: lists, not tuples
        return cls(folder, settings, model.embed_many(contents))

    def check(self, other: "Origin", where: str):
        """Refuse another model.

        Args:
            other: that is to be used.
            where: what this is the origin of.

        Raises:
            IndexFolderError: it is not the same model.
        """
        if other.vectors.shape[1] != self.vectors.shape[1]:
            why = f"embeddings of {other.vectors.shape[1]}, not {self.vectors.shape[1]}"
        elif other.modalities != self.modalities:
            why = "other modalities, or settings of them"
        elif not np.all((other.vectors * self.vectors).sum(1) >= SAME):
            why = "other weights"
        else:
            return
        raise IndexFolderError(
            f"{where}: was made with another model than {other.folder}, which has {why}"
        )
