"""The network and the loss of taichu as one writes them in PyTorch: `taichu.model.backbone` and
`taichu.training.objectives`.

Parameters have the same names and shapes, so weights pass over by name.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from taichu.model.spelling import spell_codes


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, H, G, K = config.width, config.heads, config.key_value_heads, config.head_size
        self.heads, self.groups, self.head_size = H, G, K
        self.query = nn.Linear(D, H * K, bias=config.bias)
        self.key = nn.Linear(D, G * K, bias=config.bias)
        self.value = nn.Linear(D, G * K, bias=config.bias)
        self.output = nn.Linear(H * K, D, bias=False)
        self.query_norm = nn.RMSNorm(K, eps=config.norm_epsilon)
        self.key_norm = nn.RMSNorm(K, eps=config.norm_epsilon)

    def forward(self, x, cos, sin, mask):
        B, L, _ = x.shape
        q = self.query_norm(self.query(x).view(B, L, self.heads, self.head_size))
        k = self.key_norm(self.key(x).view(B, L, self.groups, self.head_size))
        v = self.value(x).view(B, L, self.groups, self.head_size)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            enable_gqa=self.heads != self.groups,
        )
        return self.output(out.transpose(1, 2).reshape(B, L, -1))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.attention_norm(x), cos, sin, mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class PatchEmbedder(nn.Module):
    def __init__(self, patch_size, tokens, width):
        super().__init__()
        self.linear = nn.Linear(patch_size, width)
        self.place = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, patches):
        places = torch.arange(len(patches)) % len(self.place)
        return self.linear(patches) + self.place[places]


class PatchScale(nn.Module):
    def __init__(self, patch_size, tokens):
        super().__init__()
        self.register_buffer("mean", torch.zeros(tokens, patch_size))
        self.register_buffer("deviation", torch.ones(1))

    def forward(self, patches):
        places = torch.arange(len(patches)) % len(self.mean)
        return (patches - self.mean[places]) / self.deviation


class IdTable(nn.Module):
    """A vector for each id; a code's is its own and those of its digits, added."""

    def __init__(self, config, vocabulary_size):
        super().__init__()
        spelling = spell_codes([config.codecs[name].levels for name in config.modalities])
        codes, digits = spelling.shape
        self.own = nn.Parameter(torch.zeros(vocabulary_size, config.width))
        self.digits = nn.Parameter(torch.zeros(digits, config.width))
        share = (2 * spelling.sum(1, keepdims=True)) ** -0.5
        size = torch.ones(vocabulary_size, 1)
        size[vocabulary_size - codes :] = 0.5**0.5
        self.register_buffer("size", size, persistent=False)
        self.register_buffer("spelling", torch.tensor(spelling * share), persistent=False)

    def forward(self):
        spelled = self.spelling @ self.digits
        return self.own * self.size + F.pad(spelled, (0, 0, len(self.own) - len(spelled), 0))


class Network(nn.Module):
    """Backbone and loss; takes the arrays of a packed batch, gives the loss."""

    def __init__(self, config, vocabulary_size, grids, frequencies, alignment_weight=1.5):
        super().__init__()
        D = config.width
        self.alignment_weight = alignment_weight
        self.table = IdTable(config, vocabulary_size)
        self.patch_scales = nn.ModuleList([PatchScale(P, T) for T, P in grids])
        self.patch_embedders = nn.ModuleList([PatchEmbedder(P, T, D) for T, P in grids])
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm = nn.RMSNorm(D, eps=config.norm_epsilon)
        self.head = None if config.tied else IdTable(config, vocabulary_size)
        self.projection = nn.Linear(D, config.embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.14)]))
        self.register_buffer("frequencies", torch.tensor(frequencies), persistent=False)

    def forward(
        self,
        ids,
        source,
        coords,
        segment,
        span,
        pool,
        positions,
        targets,
        weights,
        ranges,
        pair_group,
        pair_caption,
        *patches,
    ):
        table = self.table()
        rows = [table.new_zeros(1, table.shape[1])]
        scaled = [scale(p) for scale, p in zip(self.patch_scales, patches)]
        rows += [embedder(p) for embedder, p in zip(self.patch_embedders, scaled)]
        x = F.embedding(ids, table) * table.shape[1] ** 0.5
        x = torch.where(source.unsqueeze(2) > 0, F.embedding(source, torch.cat(rows)), x)
        angle = coords.float() @ self.frequencies
        cos, sin = angle.cos().unsqueeze(2), angle.sin().unsqueeze(2)
        mask = attention_mask(segment, span)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        hidden = self.norm(x).flatten(0, 1)
        decoded = hidden[positions]
        logits = decoded @ (table if self.head is None else self.head()).T
        number = torch.arange(logits.shape[1])
        outside = (number < ranges[:, :1]) | (number >= ranges[:, 1:])
        losses = F.cross_entropy(
            logits.masked_fill(outside, -math.inf), targets.long(), reduction="none"
        )
        alignment = self.alignment(hidden, pool.flatten(), pair_group, pair_caption)
        return (losses * weights).sum() + self.alignment_weight * alignment

    def alignment(self, hidden, pool, group, caption):
        """Symmetric InfoNCE within each group, equal captions left out of the negatives."""
        E = len(group)
        sums = hidden.new_zeros(2 * E + 1, hidden.shape[1]).index_add(0, pool, hidden)
        count = hidden.new_zeros(2 * E + 1).index_add(0, pool, hidden.new_ones(len(pool)))
        mean = (sums / count.clamp(min=1).unsqueeze(1))[1:]
        left, right = F.normalize(self.projection(mean), dim=-1).view(E, 2, -1).unbind(1)
        scores = left @ right.T * self.log_scale.clamp(max=math.log(100)).exp()
        counted = (group.unsqueeze(1) == group) & (caption.unsqueeze(1) != caption)
        counted = counted | torch.eye(E, dtype=torch.bool)
        own, used = torch.arange(E), (group >= 0).float()
        losses = sum(
            F.cross_entropy(s.masked_fill(~counted, -math.inf), own, reduction="none")
            for s in (scores, scores.T)
        )
        return (0.5 * losses * used).sum() / used.sum().clamp(min=1)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attention_mask(segment, span):
    """(B, 1, L, L), True where a token may look; padding sees padding, so that no row is empty."""
    L = segment.shape[1]
    earlier = torch.ones(L, L, dtype=torch.bool).tril()
    same_segment = segment.unsqueeze(2) == segment.unsqueeze(1)
    same_span = (span.unsqueeze(2) == span.unsqueeze(1)) & (span.unsqueeze(2) > 0)
    return (same_segment & (earlier | same_span)).unsqueeze(1)


class TorchStep:
    """One optimizer step: loss, gradients, clipping, AdamW; eager or compiled."""

    def __init__(self, network: Network, compiled: bool, rate: float, clip: float = 1.0):
        self.network, self.clip = network, clip
        self.loss = torch.compile(network) if compiled else network
        matrices = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)

    def __call__(self, arrays) -> tuple[float, float]:
        """Loss, and the gradients' norm before clipping."""
        loss = self.loss(*(torch.from_numpy(array) for array in arrays))
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        return loss.item(), norm.item()
