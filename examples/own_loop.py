"""Your own training loop: the model is an ordinary Cell that takes the packed batch's tensors.

    python examples/own_loop.py data/digits/manifest.jsonl 200

Aligns texts and pictures from scratch: own loss, value_and_grad, MindSpore's Adam.
"""

import sys

import mindspore as ms
from mindspore import nn, ops

from taichu import Taichu
from taichu.config import load_size
from taichu.data.batches import Batches, MixtureConfig
from taichu.data.prepared import prepare
from taichu.tokenizer import train_tokenizer

manifest, steps = sys.argv[1], int(sys.argv[2])

size = load_size("nano", depth=1)
data = prepare(manifest, "train", size.modalities, cache="runs/cache")
texts = [text for sample in data.samples for _, text in sample.texts]
model = Taichu(size, train_tokenizer(texts, size.pieces, "runs/own_loop"))
model.measure(data.grids)
mixture = MixtureConfig({"text-image": 1.0}, grouped_weight=0, joint_weight=0, rows=8, length=128)
batches = Batches(data, model.vocabulary, model.adapters, codes={}, mixture=mixture, seed=0)
pairs = batches.shape.pairs
optimizer = nn.Adam(model.backbone.trainable_params(), learning_rate=1e-3)


def forward(ids, source, coords, segment, span, pool, pair_group, *patches):
    hidden = model.backbone(ids, source, coords, segment, span, *patches)
    texts_and_media = model.backbone.embed(hidden, pool, 2 * pairs).reshape((pairs, 2, -1))
    scores = 10 * ops.matmul(texts_and_media[:, 0], texts_and_media[:, 1].T)
    losses = ops.cross_entropy(scores, ops.arange(pairs), reduction="none")
    used = (pair_group >= 0).astype(ms.float32)
    return (losses * used).sum() / used.sum()


gradient = ms.value_and_grad(forward, None, optimizer.parameters)


@ms.jit
def train_step(*arrays):
    loss, gradients = gradient(*arrays)
    return ops.depend(loss, optimizer(ops.clip_by_global_norm(gradients, 1.0)))


for k in range(steps):
    b = batches(k)
    arrays = (b.ids, b.source, b.coords, b.segment, b.span, b.pool, b.pair_group, *b.patches)
    loss = train_step(*(ms.Tensor(array) for array in arrays))
    print(f"step {k + 1}: loss {float(loss):.4f}", flush=True)
