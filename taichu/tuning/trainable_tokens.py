"""Trainable tokens: the vectors of some ids are trained, all others stay as they are.

Names of dimensions: W rows of a table, D width, n ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.config import nearest
from taichu.errors import ConfigError, TuningError
from taichu.model.backbone import Backbone
from taichu.model.published_names import TABLES
from taichu.model.spelling import OWN_SHARE, spelled_rows
from taichu.tuning.method import Method, TunedCell, replace

PART = "trainable_tokens_delta"


@dataclass(frozen=True, kw_only=True)
class TrainableTokens(Method):
    """Rows of the table, and of the head where it has its own, in place of those of the base. PEFT
    has the method under this name, and its "delta" is no difference either: it holds the vectors
    that stand in place, which start as the base's.

    A code's vector is trained as it is looked up, with what its digits add, so that no other code
    changes with it; merged, its own part makes up for them.

    Attributes:
        tokens: ids of the joint vocabulary, or names of grid modalities: a modality's control
            tokens and codes.
        targets: "table", "head" or both; of a tied head the table's are trained.
    """

    tokens: tuple[int | str, ...]
    targets: tuple[str, ...] = tuple(TABLES)

    peft_type: ClassVar[str] = "TRAINABLE_TOKENS"
    parts: ClassVar[tuple[str, ...]] = (PART,)

    def __post_init__(self):
        if not self.tokens:
            raise ConfigError("tokens: must name at least one id or modality")
        for target in self.targets:
            if target not in TABLES:
                known = ", ".join(TABLES)
                raise ConfigError(
                    f"targets: {target!r} is none of {known}{nearest(target, TABLES)}"
                )

    def attach(self, backbone, weight=None):
        found, ids_n = {}, self.ids(backbone)
        for table in self.tables(backbone):
            own = {f"{table}.{part}": p.asnumpy() for part, p in parts_of(backbone, table).items()}
            vectors_nD = present_vectors(own, table, backbone, ids_n)
            cell = replace(backbone, table, lambda old, v=vectors_nD: TokensTable(old, ids_n, v))
            found[f"{table}.{PART}"] = cell.trainable_tokens_delta
        return found

    def shapes(self, backbone, base):
        shape = (len(self.ids(backbone)), backbone.width)
        return {f"{table}.{PART}": shape for table in self.tables(backbone)}

    def differences(self, tensors, base, backbone):
        yield from super().differences(tensors, base, backbone)
        ids_n, joint = self.ids(backbone), backbone.joint_ids
        codes = sum(len(joint.codes(modality)) for modality in joint.media)
        share_n = np.where(ids_n < joint.size - codes, 1.0, OWN_SHARE)
        for table in self.tables(backbone):
            if f"{table}.{PART}" in tensors:
                before_nD = present_vectors(base, table, backbone, ids_n)
                change_nD = tensors[f"{table}.{PART}"].astype(np.float64) - before_nD
                change_WD = np.zeros_like(base[f"{table}.own"])
                change_WD[ids_n] = change_nD / share_n[:, None]
                yield f"{table}.own", change_WD

    def ids(self, backbone: Backbone) -> np.ndarray:
        """(n,) int: what is named, each once, in that order.

        Raises:
            TuningError: the model has no such id or modality.
        """
        joint, found = backbone.joint_ids, []
        for token in self.tokens:
            if isinstance(token, str):
                if token not in joint.media:
                    hint = nearest(token, joint.media)
                    raise TuningError(f"tokens: the model has no modality {token!r}{hint}")
                found += joint.of(token)
            elif 0 <= token < joint.size:
                found.append(token)
            else:
                raise TuningError(f"tokens: {token} is no id; they are 0 to {joint.size - 1}")
        return np.array(list(dict.fromkeys(found)))

    def tables(self, backbone: Backbone) -> list[str]:
        """Those of the targets that the model has."""
        return [t for t in self.targets if t == "table" or backbone.head is not None]

    def settings(self, backbone):
        targets = [TABLES[table].rpartition(".")[2] for table in self.tables(backbone)]
        return {"token_indices": list(self.tokens), "target_modules": targets}

    @classmethod
    def of_settings(cls, content, where):
        content = dict(content)
        content.pop("init_weights", None)
        named = content.pop("target_modules", "embed_tokens")
        ours = {theirs.rpartition(".")[2]: table for table, theirs in TABLES.items()}
        ends = [str(n).rpartition(".")[2] for n in (named if isinstance(named, list) else [named])]
        content["targets"] = [ours.get(end, end) for end in ends]
        content["tokens"] = content.pop("token_indices", [])
        return super().of_settings(content, where)


class TokensTable(TunedCell):
    """A table (W, D) some of whose rows are others.

    Args:
        base: makes the table.
        ids_n: the rows, each once.
        vectors_nD: what stands there at the start.
    """

    def __init__(self, base: nn.Cell, ids_n: np.ndarray, vectors_nD: np.ndarray):
        super().__init__(base)
        self.trainable_tokens_delta = ms.Parameter(vectors_nD)
        rows = self.inmost.own.shape[0]
        self.put_rows = _PutRows(ids_n, rows)

    def construct(self):
        return self.put_rows(self.base(), self.trainable_tokens_delta)


class _PutRows(nn.Cell):
    """A table (W, D) with rows (n, D) in place of some of its own: W + n rows, looked up once.

    The rows' gradient is looked up too; the table's is that of what is left of it.
    """

    def __init__(self, ids_n: np.ndarray, rows: int):
        super().__init__()
        source_W = np.arange(rows)
        source_W[ids_n] = rows + np.arange(len(ids_n))
        self.source_W, self.ids_n = ms.Tensor(source_W, ms.int32), ms.Tensor(ids_n, ms.int32)
        self.look_up = operators.look_up()

    def construct(self, table_WD, rows_nD):
        return self.look_up(ops.concat((table_WD, rows_nD), 0), self.source_W)

    def bprop(self, table_WD, rows_nD, out, dout_WD):
        left = ops.concat((dout_WD, ops.zeros_like(rows_nD)), 0)
        return self.look_up(left, self.source_W), self.look_up(dout_WD, self.ids_n)


def parts_of(backbone: Backbone, table: str) -> dict[str, ms.Parameter]:
    """The parameters of a table itself, whatever stands beside it, by their last name."""
    cell = getattr(backbone, table)
    cell = cell.inmost if isinstance(cell, TunedCell) else cell
    return dict(cell.parameters_and_names())


def present_vectors(
    base: Mapping[str, np.ndarray], table: str, backbone: Backbone, ids_n: np.ndarray
) -> np.ndarray:
    """(n, D) float32: what a base's table gives for ids."""
    levels, V = list(backbone.levels.values()), backbone.vocabulary_size
    return spelled_rows(base, table, levels, V, ids_n).astype(np.float32)
