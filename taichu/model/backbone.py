"""The backbone: embed -> N shared blocks -> {decoding head, pooled and projected embedding}.

Names of dimensions: B rows, L tokens, N = B * L, D width, K head size, V vocabulary, M targets,
E embeddings, C their width, P patch size, T tokens of a grid.
"""

import math

import mindspore as ms
from mindspore import nn, ops

from ascend import operators
from ascend.device_matrix import DeviceMatrixError, device_matrix
from ascend.sharding import Part
from taichu.config import ModelConfig
from taichu.model.block import AddRmsNorm, Block, Linear
from taichu.model.id_table import IdTable
from taichu.model.patch_embedder import PatchEmbedder, PatchScale
from taichu.model.rotary_frequencies import rotary_frequencies
from taichu.model.stage_parts import keep
from taichu.model.towers.shapes import projector_shapes, tower_shapes
from taichu.model.towers.tower_embedder import OwnScale, TowerEmbedder
from taichu.vocabulary import JointIds


class Backbone(nn.Cell):
    """The unified model over a packed batch.

    Args:
        config: sizes and modalities.
        vocabulary_size: V, size of the joint vocabulary.
        grids: (tokens, patch size) of each grid modality, in the config's order.

    Inputs of `construct` are the fields of `taichu.data.packing.PackedBatch`; its output is the
    normalised hidden state (N, D) that `decode` and `embed` read. Of a pipeline's stages, each
    holds its share of the blocks, the first what reads tokens and the last what follows the blocks
    (`taichu.training.stage`).
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, grids: list[tuple[int, int]]):
        super().__init__()
        if device_matrix().expert.size > 1 and not config.experts:
            raise DeviceMatrixError("parallel.expert: the model has no experts; it must be 1")
        D, pipeline = config.width, device_matrix().pipeline
        self.reads, self.ends = pipeline.first, pipeline.last
        first, last = 0, pipeline.size - 1
        self.width, self.vocabulary_size = D, vocabulary_size
        # of the codes' digits, of each grid modality
        self.levels = {name: config.codecs[name].levels for name in config.modalities}
        levels = list(self.levels.values())
        rows = config.table_rows(vocabulary_size)
        table = IdTable(rows, vocabulary_size, levels, D)
        self.table = keep(table, first, last) if config.tied else keep(table, first)
        scales, embedders = [], []
        for n, (T, P) in enumerate(grids):
            tower = config.tower_of(n)
            scales.append(OwnScale() if tower else PatchScale(P, T))
            embedders.append(TowerEmbedder(tower, P, T, D) if tower else PatchEmbedder(P, T, D))
        self.patch_scales = nn.CellList([keep(scale, first) for scale in scales])
        self.patch_embedders = nn.CellList([keep(embedder, first) for embedder in embedders])
        part = Part((config.depth,)).split(0, pipeline, "blocks")
        blocks = [keep(Block(config), n // part.shape[0]) for n in range(config.depth)]
        self.blocks = nn.CellList(blocks)
        self.own_blocks = tuple(range(part.start[0], part.start[0] + part.shape[0]))
        self.prefix = None  # what all tokens see besides (`taichu.tuning.prefix`), if anything
        self.norm = keep(AddRmsNorm(D, config.norm_epsilon), last)
        self.head = None
        if not config.tied:
            self.head = keep(IdTable(rows, vocabulary_size, levels, D), last)
        self.matmul = operators.Matmul()
        self.rows, self.sum_rows = operators.look_up(), operators.sum_rows()
        self.narrow = operators.narrow()
        sequence = device_matrix().sequence
        self.share, self.shares = sequence.index, sequence.size
        self.gather = operators.collective(operators.GatherRows, sequence)
        self.projection = keep(Linear(D, config.embedding), last)
        # CLIP's learned temperature (2103.00020, section 2.5), kept as log(1 / temperature); it
        # starts at twice CLIP's 0.07, as batches of tens of pairs want; of shape (1,) since
        # ops.clip_by_global_norm of a user's loop makes that of a number's gradient
        self.log_scale = keep(ms.Parameter(ms.Tensor([math.log(1 / 0.14)], ms.float32)), last)
        self.frequencies_3K = ms.Tensor(rotary_frequencies(config), ms.float32)
        self.id_scale, self.rotary_size = config.id_scale, config.rotary_size

    @property
    def joint_ids(self) -> JointIds:
        """The vocabulary that it is for."""
        codes = {name: math.prod(levels) for name, levels in self.levels.items()}
        return JointIds.of_size(self.vocabulary_size, codes)

    def construct(self, ids_BL, source_BL, coords_BL3, segment_BL, span_BL, *patches_NP):
        x_ND, branch_ND = self.read_tokens(ids_BL, source_BL, *patches_NP)
        x_ND, branch_ND = self.run_blocks(x_ND, branch_ND, coords_BL3, segment_BL, span_BL)
        return self.all_tokens(self.normalise(x_ND, branch_ND), ids_BL.shape[1])

    def run_blocks(self, x_ND, branch_ND, coords_BL3, segment_BL, span_BL):
        """What the last of the blocks, or of this pipeline stage's, returns."""
        where = (*self.turn(coords_BL3), segment_BL, span_BL)
        prefixes = self.prefixes()
        for n in self.own_blocks:
            x_ND, branch_ND = self.blocks[n](x_ND, branch_ND, *where, *prefixes[n])
        return x_ND, branch_ND

    def prefixes(self):
        """Of each block (keys, values (P, G, K), bias (P,)) of P places that all tokens see before
        those of their segment; as a rule of no place, ()."""
        if self.prefix is None:
            return ((),) * len(self.blocks)
        return self.prefix(self)

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
        than the blocks, which ids that are seen seldom need. Published tables are read as they are.
        """
        vectors_ND = self.rows(self.table(), ids_N)
        return vectors_ND if self.id_scale == 1 else vectors_ND * self.id_scale

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
        if self.rotary_size == 1:
            return ops.cos(angle_NK), ops.sin(angle_NK)
        return ops.cos(angle_NK) * self.rotary_size, ops.sin(angle_NK) * self.rotary_size

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


def count_parameters(
    config: ModelConfig, vocabulary_size: int, grids: list[tuple[int, int]]
) -> int:
    """Number of the backbone's parameters, trained or measured, without allocating any."""
    D, H, G, K = config.width, config.heads, config.key_value_heads, config.head_size
    attention = D * K * (H + 2 * G) + H * K * D + 2 * K * config.query_key_norm
    attention += K * (H + 2 * G) * config.bias
    feed_forward = 3 * D * config.hidden
    if config.experts:  # each with its row of the router and its balance
        feed_forward = config.experts * (feed_forward + D + 1)
    block = attention + feed_forward + 2 * D
    digits = sum(sum(config.codecs[name].levels) for name in config.modalities)
    heads = (config.table_rows(vocabulary_size) + digits) * D * (1 if config.tied else 2)
    reading = 0
    for n, (T, P) in enumerate(grids):
        tower = config.tower_of(n)
        if tower:
            shapes = *tower_shapes(tower, T, P).values(), *projector_shapes(tower, D).values()
            reading += sum(map(math.prod, shapes))
        else:
            reading += (P + 1 + T) * D + T * P + 1
    return config.depth * block + D + heads + reading + D * config.embedding + 1
