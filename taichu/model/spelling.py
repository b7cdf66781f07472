"""How a code's vector is put together from its own and those of the digits that spell it.

Names of dimensions: V vocabulary, C codes of it, R digits of all modalities, D width.
"""

import math

import numpy as np

OWN_SHARE = 0.5**0.5  # half of a code's size is its own, half its digits'


def digit_shares(levels: list[tuple[int, ...]]) -> np.ndarray:
    """(C, R): how much of each digit's vector is in each code's."""
    spelling_CR = spell_codes(levels)
    return spelling_CR * (2 * spelling_CR.sum(1, keepdims=True)) ** -0.5


def spelled_table(
    tensors: dict[str, np.ndarray], name: str, levels: list[tuple[int, ...]], vocabulary_size: int
) -> np.ndarray:
    """The table (V, D), in float64, of a model's tensors ``name.own`` and ``name.digits``; what
    `taichu.model.id_table.IdTable` makes."""
    return spelled_rows(tensors, name, levels, vocabulary_size, np.arange(vocabulary_size))


def spelled_rows(
    tensors: dict[str, np.ndarray],
    name: str,
    levels: list[tuple[int, ...]],
    vocabulary_size: int,
    ids_n: np.ndarray,
) -> np.ndarray:
    """The rows (n, D) of some ids; see `spelled_table`."""
    rows_nD = tensors[f"{name}.own"][ids_n].astype(np.float64)
    if levels:
        shares_CR = digit_shares(levels).astype(np.float64)
        codes_n = ids_n - (vocabulary_size - len(shares_CR))
        spelled = codes_n >= 0
        made = shares_CR[codes_n[spelled]] @ tensors[f"{name}.digits"]
        rows_nD[spelled] = rows_nD[spelled] * OWN_SHARE + made
    return rows_nD


def spell_codes(levels: list[tuple[int, ...]]) -> np.ndarray:
    """(C, R) of 0 and 1: which of the R digits of all modalities spell each of the C codes.

    A digit is one place of one modality's codes at one of its levels; the first place of a code
    changes fastest, as in `taichu.model.codec.FiniteScalarQuantizer`.
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
