"""Published sentence encoders: texts -> unit vectors, without the backbone."""

from pathlib import Path

import mindspore as ms
import numpy as np

from taichu.model.bert import Bert
from taichu.sentences.files import read_sentence_encoder
from taichu.storage.checkpoint import named_parameters, set_parameter

ROWS = 16  # sentences of a call
LENGTHS = (32, 128, 512)  # that sentences are filled up to


class SentenceEncoder:
    """A BERT whose tokens' mean is a sentence's vector, such as all-MiniLM-L6-v2.

    Args:
        folder: config.json, model.safetensors or its shards, tokenizer.json, and 1_Pooling.

    Raises:
        CheckpointError: a file is missing, damaged, or asks for what is not computed.
    """

    def __init__(self, folder: Path | str):
        config, tensors, self.tokenizer, self.longest = read_sentence_encoder(Path(folder))
        self.bert = Bert(config)
        for name, parameter in named_parameters(self.bert).items():
            parts = list(tensors[name].read())
            set_parameter(parameter, np.concatenate(parts).reshape(parameter.shape))
        self._run = ms.jit(self.bert.construct)

    def embed(self, texts: list[str]) -> np.ndarray:
        """Texts -> (n, W) float32; of long ones the first part."""
        every = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(every[i]))
        vectors = np.zeros((len(texts), self.bert.pieces.shape[1]), np.float32)
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            most = max(len(every[i]) for i in chosen)
            length = min(next((n for n in LENGTHS if n >= most), most), self.longest)
            ids, segment = np.zeros((2, ROWS, length), np.int32)
            for row, i in enumerate(chosen):
                ids[row, : len(every[i])], segment[row, : len(every[i])] = every[i], 1
            made = self._run(ms.Tensor(ids), ms.Tensor(segment)).asnumpy()
            vectors[chosen] = made[: len(chosen)]
        return vectors
