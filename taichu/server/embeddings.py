"""``POST /v1/embeddings``: strings and content parts -> unit vectors."""

import asyncio
import base64

import numpy as np

from taichu.runtime import Runtime
from taichu.server.errors import RequestError
from taichu.server.limits import Limits
from taichu.server.media_process import MediaProcesses
from taichu.server.parts import parse_part, parse_parts, read_parts
from taichu.server.schema import EmbeddingRequest


class Embeddings:
    """Answers requests for embeddings, one at a time.

    Args:
        model: an exported model.
        media: that reads files.
        limits: of the server.
        hosts: from which files are fetched.
    """

    def __init__(
        self, model: Runtime, media: MediaProcesses, limits: Limits, hosts: frozenset[str]
    ):
        self.model, self.media, self.limits, self.hosts = model, media, limits, hosts
        self.turn = asyncio.Lock()

    async def answer(self, request: EmbeddingRequest) -> dict:
        """The embeddings, in the order of the inputs.

        Raises:
            RequestError: an input is wrong.
        """
        size = self.model.config.embedding
        if request.dimensions not in (None, size):
            raise RequestError(f"dimensions: the model has {size}", param="dimensions")
        given = [request.input] if isinstance(request.input, str) else request.input
        if not 0 < len(given) <= self.limits.inputs:
            what = f"input must hold 1 to {self.limits.inputs} items, not {len(given)}"
            raise RequestError(what, param="input")
        groups = [self._parts(one, f"input[{number}]") for number, one in enumerate(given)]
        flat = [part for group in groups for part in group]
        read = iter(await read_parts(flat, self.limits, self.hosts, self.media))
        contents = [[next(read) for _ in group] for group in groups]
        tokens = [sum(len(s) + 2 for s in self.model.observe(content)) for content in contents]
        if max(tokens) > self.limits.room:
            what = f"input[{int(np.argmax(tokens))}] has {max(tokens)} tokens, more than the "
            what += f"{self.limits.room} that a row holds"
            raise RequestError(what, param="input", code="context_length_exceeded")
        async with self.turn:
            vectors = await asyncio.to_thread(self.model.embed_many, contents)
        encoded = map(ENCODINGS[request.encoding_format], vectors)
        data = [
            {"object": "embedding", "index": number, "embedding": vector}
            for number, vector in enumerate(encoded)
        ]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return {"object": "list", "data": data, "model": request.model, "usage": usage}

    def _parts(self, one, param: str) -> list:
        """The parts of an input, of which there must be some."""
        if isinstance(one, dict):
            parts = parse_part(one, param, self.model.adapters)
        else:
            parts = parse_parts(one, param, self.model.adapters)
        if not parts:
            raise RequestError(f"{param} is empty", param=param)
        return parts


def in_base64(vector: np.ndarray) -> str:
    """As OpenAI's client asks for them: float32, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


ENCODINGS = {"float": np.ndarray.tolist, "base64": in_base64}
