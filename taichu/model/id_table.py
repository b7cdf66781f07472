"""The vectors of ids, those of codes spelled by their digits.

Names of dimensions: V vocabulary, W rows of the table, C codes, R digits of all modalities, D
width.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.model.matrices import draw_matrix, whole
from taichu.model.spelling import OWN_SHARE, digit_shares


class IdTable(nn.Cell):
    """A vector of size 1 for each id of the joint vocabulary; output (W, D).

    A code's vector is one of its own and one for each digit that spells it (FSQ, 2309.15505),
    added: what is learned of a digit is learned of all codes that hold it, however rare they are.

    Args:
        rows: W, at least V; what follows the vocabulary's is never looked up nor decoded.
        vocabulary_size: V; the codes come last.
        levels: levels of the digits of each grid modality's codes, in the vocabulary's order; none
            for a vocabulary of text alone.
        width: D.
    """

    def __init__(self, rows: int, vocabulary_size: int, levels: list[tuple[int, ...]], width: int):
        super().__init__()
        self.own = draw_matrix((rows, width), width**-0.5, shared_out=True)
        self.whole, self.spelled = whole(self.own), bool(levels)
        if not self.spelled:
            return
        shares_CR = digit_shares(levels)
        self.digits = draw_matrix((shares_CR.shape[1], width), width**-0.5)
        self.spell = _Spell(shares_CR, rows, vocabulary_size)

    def construct(self):
        own_WD = self.whole(self.own)
        return self.spell(own_WD, self.digits) if self.spelled else own_WD


class _Spell(nn.Cell):
    """The table (W, D) of own vectors (W, D) and digits' vectors (R, D).

    Its gradient is put together as the table is; a slice's own would fill all of W with zeros.
    """

    def __init__(self, shares_CR: np.ndarray, rows: int, vocabulary_size: int):
        super().__init__()
        self.shares_CR = ms.Tensor(shares_CR, ms.float32)
        codes = len(shares_CR)
        texts = vocabulary_size - codes
        # text and codes, each from where and how many, and what fills the table up
        self.parts = ((0, texts), (texts, codes), (vocabulary_size, rows - vocabulary_size))
        if rows == vocabulary_size:
            self.parts = self.parts[:2]
        self.share = OWN_SHARE
        self.transposed = ops.MatMul(transpose_a=True)
        self.narrow = operators.narrow()

    def construct(self, own_WD, digits_RD):
        own = self.cut(own_WD)
        spelled_CD = ops.matmul(self.shares_CR, digits_RD)
        return ops.concat((own[0], own[1] * self.share + spelled_CD, *own[2:]), 0)

    def bprop(self, own_WD, digits_RD, out, dout_WD):
        dout = self.cut(dout_WD)
        return (
            ops.concat((dout[0], dout[1] * self.share, *dout[2:]), 0),
            self.transposed(self.shares_CR, dout[1]),
        )

    def cut(self, table_WD):
        parts = ()
        for start, count in self.parts:
            parts += (self.narrow(table_WD, 0, start, count),)
        return parts
