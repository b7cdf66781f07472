"""Training by mindspore.Model.train: callbacks, and a mindspore.dataset as the source of batches.

    python examples/model_train.py data/digits/manifest.jsonl 200

Trains alignment from scratch on whatever groups of text and media the manifest's rows allow.
"""

import sys

import mindspore as ms
from mindspore import nn

from taichu import Taichu
from taichu.config import load_size
from taichu.data.batches import Batches, MixtureConfig
from taichu.data.prepared import prepare
from taichu.tokenizer import train_tokenizer
from taichu.training.objectives import Objective


class Source:
    """A random-access source for GeneratorDataset: item k is batch k, as a tuple of arrays."""

    def __init__(self, batches: Batches, steps: int):
        self.batches, self.steps = batches, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, k):
        return self.batches(int(k)).arrays()


class Loss(nn.Cell):
    """What `Model` wants where the loss is part of the network: one number."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def construct(self, *arrays):
        return self.objective(*arrays)[0]


def main(manifest: str, steps: int):
    ms.set_context(mode=ms.GRAPH_MODE)
    size = load_size("nano", depth=1)
    data = prepare(manifest, "train", size.modalities, cache="runs/cache")
    texts = [text for sample in data.samples for _, text in sample.texts]
    model = Taichu(size, train_tokenizer(texts, size.pieces, "runs/model_train"))
    model.measure(data.grids)
    present = {f"text-{m}": 1.0 for m in model.adapters if len(data.having(("text", m)))}
    mixture = MixtureConfig(present, grouped_weight=0, joint_weight=0, rows=8, length=128)
    batches = Batches(data, model.vocabulary, model.adapters, codes={}, mixture=mixture, seed=0)

    names = [f"array{i}" for i in range(len(batches(0).arrays()))]
    dataset = ms.dataset.GeneratorDataset(Source(batches, steps), names, shuffle=False)
    loss = Loss(Objective(model.backbone, model.vocabulary, decoding=False))
    optimizer = nn.Adam(loss.trainable_params(), learning_rate=1e-3)
    trainer = ms.Model(loss, optimizer=optimizer)
    callbacks = [ms.LossMonitor(), ms.TimeMonitor()]
    trainer.train(1, dataset, callbacks=callbacks, dataset_sink_mode=False)
    model.save_pretrained("runs/model_train/model")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
