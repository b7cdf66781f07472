"""The vectors of ids, those of codes spelled by their digits.

Names of dimensions: V vocabulary, C codes of it, R digits of all modalities, D width.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ascend import operators
from taichu.matrices import draw_matrix, whole


class IdTable(nn.Cell):
    """A vector of size 1 for each id of the joint vocabulary; output (V, D).

    A code's vector is one of its own and one for each digit that spells it (FSQ, 2309.15505),
    added: what is learned of a digit is learned of all codes that hold it, however rare they are.

    Args:
        vocabulary_size: V; the codes come last.
        levels: levels of the digits of each grid modality's codes, in the vocabulary's order; none
            for a vocabulary of text alone.
        width: D.
    """

    def __init__(self, vocabulary_size: int, levels: list[tuple[int, ...]], width: int):
        super().__init__()
        self.own = draw_matrix((vocabulary_size, width), width**-0.5, shared_out=True)
        self.whole, self.spelled = whole(self.own), bool(levels)
        if not self.spelled:
            return
        spelling_CR = spell_codes(levels)
        codes, digits = spelling_CR.shape
        self.digits = draw_matrix((digits, width), width**-0.5)
        # half of a code's size is its own, half its digits'
        share_C1 = (2 * spelling_CR.sum(1, keepdims=True)) ** -0.5
        self.spell = _Spell(spelling_CR * share_C1, vocabulary_size, width)

    def construct(self):
        own_VD = self.whole(self.own)
        return self.spell(own_VD, self.digits) if self.spelled else own_VD


class _Spell(nn.Cell):
    """The table (V, D) of own vectors (V, D) and digits' vectors (R, D).

    Its gradient is put together as the table is; a slice's own would fill all of V with zeros.
    """

    def __init__(self, spelling_CR: np.ndarray, vocabulary_size: int, width: int):
        super().__init__()
        self.spelling_CR = ms.Tensor(spelling_CR, ms.float32)
        codes = len(spelling_CR)
        self.texts, self.codes = vocabulary_size - codes, codes
        self.share = 0.5**0.5
        self.transposed = ops.MatMul(transpose_a=True)
        self.narrow = operators.narrow()

    def construct(self, own_VD, digits_RD):
        texts, own_CD = self.parts(own_VD)
        spelled_CD = ops.matmul(self.spelling_CR, digits_RD)
        return ops.concat((texts, own_CD * self.share + spelled_CD), 0)

    def bprop(self, own_VD, digits_RD, out, dout_VD):
        texts, dout_CD = self.parts(dout_VD)
        return (
            ops.concat((texts, dout_CD * self.share), 0),
            self.transposed(self.spelling_CR, dout_CD),
        )

    def parts(self, table_VD):
        texts = self.narrow(table_VD, 0, 0, self.texts)
        return texts, self.narrow(table_VD, 0, self.texts, self.codes)


def spell_codes(levels: list[tuple[int, ...]]) -> np.ndarray:
    """(C, R) of 0 and 1: which of the R digits of all modalities spell each of the C codes.

    A digit is one place of one modality's codes at one of its levels; the first place of a code
    changes fastest, as in `taichu.codec.FiniteScalarQuantizer`.
    """
    codes = sum(math.prod(of) for of in levels)
    spelling_CR = np.zeros((codes, sum(map(sum, levels))), np.float32)
    first_code = first_digit = 0
    for of in levels:
        codes_n = np.arange(math.prod(of))
        rows_n, rest_n = first_code + codes_n, codes_n
        for level in of:
            spelling_CR[rows_n, first_digit + rest_n % level] = 1
            rest_n = rest_n // level
            first_digit += level
        first_code += len(codes_n)
    return spelling_CR
