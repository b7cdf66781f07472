"""The keys and values that rows have so far, which each step adds to in place.

Names of dimensions: R rows, G key/value heads, S room for tokens, K head size, V vocabulary.
"""

import numpy as np

from taichu.config import ModelConfig
from taichu.runtime.sessions import Sessions


class Cache:
    """Room for rows that are continued token by token.

    Args:
        sessions: of the folder.
        config: of the model.
        rows: R. room: S, of a row's condition and what it makes.

    Attributes:
        lengths: (R,) int32, tokens that each row has.
    """

    def __init__(self, sessions: Sessions, config: ModelConfig, rows: int, room: int):
        self.sessions, self.room = sessions, room
        shape = rows, config.key_value_heads, room, config.head_size
        names = [f"{part}.{n}" for n in range(config.depth) for part in ("keys", "values")]
        self.kept = {name: np.zeros(shape, np.float32) for name in names}
        self.lengths = np.zeros(rows, np.int32)

    def fill(self, row: int, length: int, keys_and_values: list[np.ndarray], condition: int):
        """Begin a row with a condition's tokens.

        Args:
            row: to be filled.
            length: tokens of the condition.
            keys_and_values: what the graph ``read`` gives, (B, G, L, K) each.
            condition: which of the B it is.
        """
        for kept, read in zip(self.kept.values(), keys_and_values):
            kept[row, :, :length] = read[condition, :, :length]
        self.lengths[row] = length

    def move(self, source: int, target: int):
        """Put a row in another's place."""
        length = self.lengths[target] = self.lengths[source]
        for kept in self.kept.values():
            kept[target, :, :length] = kept[source, :, :length]

    def step(self, ids_R: np.ndarray, coords_R3: np.ndarray) -> np.ndarray:
        """Add a token to each of the first rows.

        Args:
            ids_R, coords_R3: the token of each row and its (t, y, x), int32; of fewer rows than
                there is room for, the first.

        Returns:
            logits (R, V) of the tokens after these.
        """
        rows = len(ids_R)
        lengths = self.lengths[:rows]
        session = self.sessions.load("step")
        binding = session.io_binding()
        longest = np.array([lengths.max() + 1], np.int32)
        inputs = {"ids": ids_R, "coords": coords_R3, "lengths": lengths, "longest": longest}
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array, np.int32))
        binding.bind_output("logits", "cpu")
        for name, array in self.kept.items():
            part = array[:rows]  # the memory of input and output is one: it is added to in place
            where = "cpu", 0, np.float32, part.shape, part.ctypes.data
            binding.bind_input(name, *where)
            binding.bind_output(f"new.{name}", *where)
        session.run_with_iobinding(binding)
        self.lengths[:rows] += 1
        return binding.get_outputs()[0].numpy()
