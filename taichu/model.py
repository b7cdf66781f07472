"""The backbone: embed -> N shared blocks -> {decoding head, pooled and projected embedding}.

Names of dimensions: B rows, L tokens, N = B * L, D width, H heads, G key/value heads, K head size,
F hidden width, V vocabulary, M targets, E embeddings, P patch size.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.common.initializer import Normal, initializer

from ascend import operators
from ascend.device_matrix import Axis, device_matrix
from ascend.sharding import Part, Place, axes_of
from taichu.config import ModelConfig


class Linear(nn.Cell):
    """y = x W^T (+ b), x (N, I), W (O, I); y is of the compute type.

    Weights start with variance ``gain``^2 / I, so that a normalised input keeps its size.

    Args:
        inputs, outputs: I and O, of the whole map.
        split: what of it the ranks of the tensor axis share out: "outputs", each making its own,
            "inputs", each adding its own to the sum, or None.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = False,
        gain: float = 1.0,
        split: str | None = None,
    ):
        super().__init__()
        deviation = gain * inputs**-0.5
        self.weight = draw_matrix((outputs, inputs), deviation, split, shared_out=True)
        self.bias = zeros(outputs, split) if bias else None
        self.matmul, self.whole = operators.Matmul(), whole(self.weight)
        axis = device_matrix().tensor if split == "inputs" else Axis("tensor")
        self.sum = operators.collective(operators.SumOutputs, axis)

    def construct(self, x_NI):
        y_NO = self.sum(self.matmul(x_NI, self.whole(self.weight)))
        if self.bias is not None:
            y_NO = y_NO + self.bias.astype(y_NO.dtype)
        return y_NO


class AddRmsNorm(nn.Cell):
    """x + branch, and its RMS normalisation; inputs and both outputs (N, D)."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = ms.Parameter(np.ones(width, np.float32))
        self.norm = operators.add_rms_norm(epsilon)

    def construct(self, x_ND, branch_ND):
        return self.norm(x_ND, branch_ND, self.weight)


class NormedRotary(nn.Cell):
    """RMS normalisation of each head, then the rotary position; x (N, H, K)."""

    def __init__(self, head_size: int, epsilon: float):
        super().__init__()
        self.weight = ms.Parameter(np.ones(head_size, np.float32))
        self.rotary = operators.normed_rotary(epsilon)
        self.share = operators.collective(operators.SumGradients, device_matrix().tensor)

    def construct(self, x_NHK, cos_NK, sin_NK):
        return self.rotary(x_NHK, self.share(self.weight), cos_NK, sin_NK)


class Attention(nn.Cell):
    """Grouped-query attention (Ainslie et al., 2305.13245) with optional query/key norm.

    Ranks of the tensor axis share out the heads; ranks of the sequence axis hold a share of each
    row's tokens, and swap it for a share of the heads while tokens look at each other.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, H, G, K = config.width, config.heads, config.key_value_heads, config.head_size
        tensor, sequence = device_matrix().tensor, device_matrix().sequence
        for heads in (H, G):
            Part((heads,)).split(0, tensor, "heads").split(0, sequence, "heads")
        self.heads, self.groups, self.head_size = H // tensor.size, G // tensor.size, K
        self.query = Linear(D, H * K, config.bias, split="outputs")
        self.key = Linear(D, G * K, config.bias, split="outputs")
        self.value = Linear(D, G * K, config.bias, split="outputs")
        self.output = Linear(H * K, D, gain=(2 * config.depth) ** -0.5, split="inputs")
        self.share = operators.collective(operators.SumGradients, tensor)
        self.sequence = sequence.size
        self.to_heads = operators.collective(operators.SwapHeads, sequence)
        self.to_tokens = operators.collective(operators.SwapHeads, sequence, True)
        self.normed = config.query_key_norm
        if self.normed:
            self.query_norm = NormedRotary(K, config.norm_epsilon)
            self.key_norm = NormedRotary(K, config.norm_epsilon)
        else:
            self.rotary = operators.rotary()
        self.attention = operators.attention()

    def construct(self, x_ND, cos_NK, sin_NK, segment_BL, span_BL):
        q_NHK, k_NGK, v_NGK = self.project(x_ND, cos_NK, sin_NK)
        if self.sequence > 1:
            out_NHK = self.swapped(q_NHK, k_NGK, v_NGK, segment_BL, span_BL)
        else:
            out_NHK = self.attention(q_NHK, k_NGK, v_NGK, segment_BL, span_BL)
        return self.join_heads(out_NHK)

    def swapped(self, q_NHK, k_NGK, v_NGK, segment_BL, span_BL):
        """The attention of a share of the tokens, by all tokens of a share of the heads."""
        (B, L), K = segment_BL.shape, self.head_size
        every = ()
        for x_NXK in (q_NHK, k_NGK, v_NGK):
            x_BLXK = self.to_heads(x_NXK.reshape((B, L // self.sequence, -1, K)))
            every += (x_BLXK.reshape((B * L, -1, K)),)
        out_NHK = self.attention(*every, segment_BL, span_BL)
        return self.to_tokens(out_NHK.reshape((B, L, -1, K))).reshape((-1, self.heads, K))

    def join_heads(self, out_NHK):
        """What the heads found (N, H, K) -> (N, D)."""
        return self.output(out_NHK.reshape((-1, self.heads * self.head_size)))

    def project(self, x_ND, cos_NK, sin_NK):
        """Queries (N, H, K), keys and values (N, G, K); queries and keys turned by their place."""
        H, G, K = self.heads, self.groups, self.head_size
        x_ND = self.share(x_ND)
        q_NHK = self.query(x_ND).reshape((-1, H, K))
        k_NGK = self.key(x_ND).reshape((-1, G, K))
        v_NGK = self.value(x_ND).reshape((-1, G, K))
        if self.normed:
            q_NHK = self.query_norm(q_NHK, cos_NK, sin_NK)
            k_NGK = self.key_norm(k_NGK, cos_NK, sin_NK)
        else:
            q_NHK = self.rotary(q_NHK, cos_NK, sin_NK)
            k_NGK = self.rotary(k_NGK, cos_NK, sin_NK)
        return q_NHK, k_NGK, v_NGK


class FeedForward(nn.Cell):
    """SwiGLU layer (Shazeer, 2002.05202)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, F = config.width, config.hidden
        self.gate, self.up = Linear(D, F, split="outputs"), Linear(D, F, split="outputs")
        self.down = Linear(F, D, gain=(2 * config.depth) ** -0.5, split="inputs")
        self.swiglu = operators.swiglu()
        self.share = operators.collective(operators.SumGradients, device_matrix().tensor)

    def construct(self, x_ND):
        x_ND = self.share(x_ND)
        return self.down(self.swiglu(self.gate(x_ND), self.up(x_ND)))


class Block(nn.Cell):
    """A pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    The sum and what is to be added to it next come and go apart (x, branch), since each norm adds
    them in its own pass; after the last block the last norm does.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = AddRmsNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = AddRmsNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def construct(self, x_ND, branch_ND, cos_NK, sin_NK, segment_BL, span_BL):
        x_ND, y_ND = self.attention_norm(x_ND, branch_ND)
        return self.feed(x_ND, self.attention(y_ND, cos_NK, sin_NK, segment_BL, span_BL))

    def feed(self, x_ND, branch_ND):
        """The block's second half."""
        x_ND, y_ND = self.feed_forward_norm(x_ND, branch_ND)
        return x_ND, self.feed_forward(y_ND)


class PatchEmbedder(nn.Cell):
    """A linear map of one modality's patches, and a learned vector for each place of its grid.

    Rotary positions tell tokens how far apart they are, the places where they stand (ViT,
    2010.11929, eq. 1). Both start at unit size, as what a block adds does: of a patch that starts
    at a tenth of it, the first blocks leave nothing to be seen.

    Args:
        patch_size: P. tokens: T of the modality's grid. width: D.

    Input: (n, P), grid after grid in token order. Output: (n, D).
    """

    def __init__(self, patch_size: int, tokens: int, width: int):
        super().__init__()
        self.linear = Linear(patch_size, width, bias=True)
        place = initializer(Normal(1.0), (tokens, width), ms.float32).init_data().asnumpy()
        self.place = ms.Parameter(place - place.mean(0, keepdims=True))

    def construct(self, patches_NP):
        return add_by_place(self.linear(patches_NP), self.place)

    def of_scaled(self, patches_NP, scale):
        """What `construct` gives for scale(patches), in one pass over the patches: the scale goes
        into the map's weight, and the mean, as it is one for each place, into the places."""
        weight_DP = self.linear.whole(self.linear.weight) / scale.deviation
        offset_TD = self.place + self.linear.bias - self.linear.matmul(scale.mean, weight_DP)
        return add_by_place(self.linear.matmul(patches_NP, weight_DP), offset_TD)


class PatchScale(nn.Cell):
    """Patches less their mean over the training data, in units of their deviation, and back.

    Most of a digit's grid is background. Left in, it is most of what a patch says, and the same in
    every grid. Kept with the parameters, not trained.

    Args:
        patch_size: P. tokens: T of the modality's grid.

    Input: (n, P), grid after grid in token order. Output: the same shape.
    """

    def __init__(self, patch_size: int, tokens: int):
        super().__init__()
        self.mean = ms.Parameter(np.zeros((tokens, patch_size), np.float32), requires_grad=False)
        self.deviation = ms.Parameter(np.ones(1, np.float32), requires_grad=False)

    def measure(self, patches_STP: np.ndarray):
        """Take the mean of each place's patches, and one deviation of all values, from a sample."""
        values_STP = patches_STP.astype(np.float64)
        ops.assign(self.mean, ms.Tensor(values_STP.mean(0), ms.float32))
        ops.assign(self.deviation, ms.Tensor([max(values_STP.std(), 1e-6)], ms.float32))

    def construct(self, patches_NP):
        return add_by_place(patches_NP, -self.mean) / self.deviation

    def undo(self, patches_NP):
        return add_by_place(patches_NP * self.deviation, self.mean)


def add_by_place(x_NX, table_TX):
    """x (N, X), grid after grid, plus the row of a table of a grid's T places for each place; of
    the type of x."""
    (T, X), table_TX = table_TX.shape, table_TX.astype(x_NX.dtype)
    return (x_NX.reshape((-1, T, X)) + table_TX).reshape((-1, X))


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
        spelling_CR = spell_codes(levels)
        codes, digits = spelling_CR.shape
        self.digits = draw_matrix((digits, width), width**-0.5)
        # half of a code's size is its own, half its digits'
        share_C1 = (2 * spelling_CR.sum(1, keepdims=True)) ** -0.5
        self.spell = _Spell(spelling_CR * share_C1, rows, vocabulary_size)

    def construct(self):
        own_WD = self.whole(self.own)
        return self.spell(own_WD, self.digits) if self.spelled else own_WD


class _Spell(nn.Cell):
    """The table (W, D) of own vectors (W, D) and digits' vectors (R, D).

    Its gradient is put together as the table is; a slice's own would fill all of W with zeros.
    """

    def __init__(self, spelling_CR: np.ndarray, rows: int, vocabulary_size: int):
        super().__init__()
        self.spelling_CR = ms.Tensor(spelling_CR, ms.float32)
        codes = len(spelling_CR)
        texts = vocabulary_size - codes
        # text and codes, each from where and how many, and what fills the table up
        self.parts = ((0, texts), (texts, codes), (vocabulary_size, rows - vocabulary_size))
        if rows == vocabulary_size:
            self.parts = self.parts[:2]
        self.share = 0.5**0.5
        self.transposed = ops.MatMul(transpose_a=True)
        self.narrow = operators.narrow()

    def construct(self, own_WD, digits_RD):
        own = self.cut(own_WD)
        spelled_CD = ops.matmul(self.spelling_CR, digits_RD)
        return ops.concat((own[0], own[1] * self.share + spelled_CD, *own[2:]), 0)

    def bprop(self, own_WD, digits_RD, out, dout_WD):
        dout = self.cut(dout_WD)
        return (
            ops.concat((dout[0], dout[1] * self.share, *dout[2:]), 0),
            self.transposed(self.spelling_CR, dout[1]),
        )

    def cut(self, table_WD):
        parts = ()
        for start, count in self.parts:
            parts += (self.narrow(table_WD, 0, start, count),)
        return parts


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


class Backbone(nn.Cell):
    """The unified model over a packed batch.

    Args:
        config: sizes and modalities.
        vocabulary_size: V, size of the joint vocabulary.
        grids: (tokens, patch size) of each grid modality, in the config's order.

    Inputs of `construct` are the fields of `taichu.packing.PackedBatch`; its output is the
    normalised hidden state (N, D) that `decode` and `embed` read.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, grids: list[tuple[int, int]]):
        super().__init__()
        D = config.width
        self.width, self.vocabulary_size = D, vocabulary_size
        levels = [config.codecs[name].levels for name in config.modalities]
        table = config.table_rows(vocabulary_size), vocabulary_size, levels, D
        self.table = IdTable(*table)
        self.patch_scales = nn.CellList([PatchScale(P, T) for T, P in grids])
        self.patch_embedders = nn.CellList([PatchEmbedder(P, T, D) for T, P in grids])
        self.blocks = nn.CellList([Block(config) for _ in range(config.depth)])
        self.norm = AddRmsNorm(D, config.norm_epsilon)
        self.head = None if config.tied else IdTable(*table)
        self.matmul = operators.Matmul()
        self.rows, self.sum_rows = operators.look_up(), operators.sum_rows()
        self.narrow = operators.narrow()
        sequence = device_matrix().sequence
        self.share, self.shares = sequence.index, sequence.size
        self.gather = operators.collective(operators.GatherRows, sequence)
        self.projection = Linear(D, config.embedding)
        # CLIP's learned temperature (2103.00020, section 2.5), kept as log(1 / temperature); it
        # starts at twice CLIP's 0.07, as batches of tens of pairs want; of shape (1,) since
        # ops.clip_by_global_norm of a user's loop makes that of a number's gradient
        self.log_scale = ms.Parameter(ms.Tensor([math.log(1 / 0.14)], ms.float32))
        self.frequencies_3K = ms.Tensor(rotary_frequencies(config), ms.float32)

    def construct(self, ids_BL, source_BL, coords_BL3, segment_BL, span_BL, *patches_NP):
        x_ND, branch_ND = self.read_tokens(ids_BL, source_BL, *patches_NP)
        cos_NK, sin_NK = self.turn(coords_BL3)
        for block in self.blocks:
            x_ND, branch_ND = block(x_ND, branch_ND, cos_NK, sin_NK, segment_BL, span_BL)
        return self.all_tokens(self.normalise(x_ND, branch_ND), ids_BL.shape[1])

    def normalise(self, x_ND, branch_ND):
        """What `decode` and `embed` read, of what the last block returned."""
        _, out_ND = self.norm(x_ND, branch_ND)
        return out_ND

    def own_tokens(self, x_BL):
        """The share of each row's tokens that is this rank's, along the sequence axis."""
        if self.shares == 1:
            return x_BL
        share = x_BL.shape[1] // self.shares
        return self.narrow(x_BL, 1, self.share * share, share)

    def all_tokens(self, hidden_ND, length: int):
        """What the ranks of the sequence axis have of rows of so many tokens, put together."""
        if self.shares == 1:
            return hidden_ND
        hidden_BLD = hidden_ND.reshape((-1, length // self.shares, self.width))
        hidden_LBD = self.gather(ops.transpose(hidden_BLD, (1, 0, 2)))
        return ops.transpose(hidden_LBD, (1, 0, 2)).reshape((-1, self.width))

    def look_up(self, ids_N):
        """Ids (N,) -> their vectors (N, D), of entries of size 1 as those of patches.

        The table's own entries are smaller by sqrt(D): with AdamW it then learns that much faster
        than the blocks, which ids that are seen seldom need.
        """
        return self.rows(self.table(), ids_N) * self.width**0.5

    def read_tokens(self, ids_BL, source_BL, *patches_NP):
        """The vector of each token, its patch's where it has one, else its id's, as two (N, D) to
        be added: one of them is zero."""
        rows = [ops.zeros((1, self.width), self.matmul.type)]
        for scale, embedder, patches in zip(self.patch_scales, self.patch_embedders, patches_NP):
            rows.append(embedder.of_scaled(patches, scale))
        ids_BL, source_BL = self.own_tokens(ids_BL), self.own_tokens(source_BL)
        source_N = source_BL.reshape((-1,))
        is_id_N1 = (source_N == 0).astype(ms.float32).reshape((-1, 1))
        ids_ND = (self.look_up(ids_BL.reshape((-1,))) * is_id_N1).astype(self.matmul.type)
        return ids_ND, self.rows(ops.concat(rows, 0), source_N)

    def turn(self, coords_BL3):
        """Cosines and sines (N, K / 2) of the rotary position at (t, y, x)."""
        coords_BL3 = self.own_tokens(coords_BL3)
        angle_NK = ops.matmul(coords_BL3.reshape((-1, 3)).astype(ms.float32), self.frequencies_3K)
        return ops.cos(angle_NK), ops.sin(angle_NK)

    def decode(self, hidden_MD):
        """Hidden states (M, D) -> logits over the id table's rows (M, W), the joint vocabulary's V
        first; the others' mean nothing."""
        if self.head is None:
            return self.matmul(hidden_MD, self.table())
        return self.matmul(hidden_MD, self.head())

    def embed(self, hidden_ND, pool_BL, embeddings: int):
        """Mean of the hidden states pooled into each embedding, projected: (E, C), unit length.

        Args:
            hidden_ND: what `construct` returned.
            pool_BL: number of the embedding of each token, from 1; 0 for none.
            embeddings: E, how many.
        """
        pool_N = pool_BL.reshape((-1,))
        sums_ED = self.sum_rows(hidden_ND.astype(ms.float32), pool_N, embeddings + 1)
        ones_N1 = ops.ones((pool_N.shape[0], 1), ms.float32)
        count_E1 = self.sum_rows(ones_N1, pool_N, embeddings + 1)
        mean_ED = sums_ED / ops.clamp(count_E1, 1.0)
        pooled_ED = self.narrow(mean_ED, 0, 1, embeddings)  # number 0 is what is not pooled
        out_EC = self.projection(pooled_ED).astype(ms.float32)
        return out_EC * ops.pow(ops.sum(out_EC * out_EC, -1, True) + 1e-12, -0.5)


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """(3, K / 2): angle of each pair of features a step along t, y, x; a pair follows one axis.

    The pairs are dealt to the axes in turn, so that each axis has high and low frequencies; equal
    coordinates give plain one-dimensional RoPE whatever the deal.
    """
    pairs = config.head_size // 2
    share = np.array(config.rope_axes) / sum(config.rope_axes)
    frequencies = np.zeros((3, pairs), np.float32)
    dealt = np.zeros(3)
    for i in range(pairs):
        axis = int(np.argmax(share * (i + 1) - dealt))
        dealt[axis] += 1
        frequencies[axis, i] = config.rope_base ** (-i / pairs)
    return frequencies


def count_parameters(
    config: ModelConfig, vocabulary_size: int, grids: list[tuple[int, int]]
) -> int:
    """Number of the backbone's parameters, trained or measured, without allocating any."""
    D, H, G, K = config.width, config.heads, config.key_value_heads, config.head_size
    attention = D * K * (H + 2 * G) + H * K * D + 2 * K * config.query_key_norm
    attention += K * (H + 2 * G) * config.bias
    block = attention + 3 * D * config.hidden + 2 * D
    digits = sum(sum(config.codecs[name].levels) for name in config.modalities)
    heads = (config.table_rows(vocabulary_size) + digits) * D * (1 if config.tied else 2)
    return (
        config.depth * block
        + D
        + heads
        + sum((P + 1 + T) * D + T * P + 1 for T, P in grids)
        + D * config.embedding
        + 1
    )


def draw_matrix(
    shape: tuple[int, int], deviation: float, split: str | None = None, shared_out: bool = False
) -> ms.Parameter:
    """This rank's part of a matrix (O, I) of normally distributed numbers, which all ranks draw.

    Args:
        shape: of the whole matrix.
        split: "outputs" or "inputs", shared out over the tensor axis, or None.
        shared_out: whether replicas share out its rows where the layout says so (ZeRO-3) and their
            number allows it.
    """
    part, chosen = Part(shape), device_matrix()
    if split:
        part.split(0 if split == "outputs" else 1, chosen.tensor, f"{split} of a matrix")
    sharded = shared_out and chosen.shard == "parameters"
    sharded = sharded and part.shape[0] % chosen.replica.size == 0
    if sharded:
        part.split(0, chosen.replica, "rows")
    drawn = initializer(Normal(deviation), shape, ms.float32)
    if part.place != Place.of_whole(part.shape):
        drawn = ms.Tensor(part.place.cut(drawn.init_data().asnumpy(), part.shape))
    return part.mark(ms.Parameter(drawn))


def zeros(outputs: int, split: str | None = None) -> ms.Parameter:
    """This rank's part of a bias; see `draw_matrix`."""
    part = Part((outputs,))
    if split == "outputs":
        part.split(0, device_matrix().tensor, "outputs of a matrix")
    return part.mark(ms.Parameter(np.zeros(part.shape, np.float32)))


def whole(parameter: ms.Parameter) -> nn.Cell:
    """The Cell that gives a parameter with the rows of all replicas."""
    axis = device_matrix().replica if "replica" in axes_of(parameter) else Axis("replica")
    return operators.collective(operators.GatherWeights, axis)
