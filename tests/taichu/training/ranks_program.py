"""A few training steps on a device matrix, for tests that run it as one rank and as one of two.

    python ranks_program.py OUT.json NAME [NAME ...]

writes, for each of `MATRICES` that is named, the losses, norms and parameters after the steps.
"""

import json
import sys
from dataclasses import replace

import mindspore as ms
import numpy as np

from ascend.device import choose_device
from ascend.device_matrix import ParallelConfig, choose_device_matrix, device_matrix
from ascend.operators import AdamW
from ascend.ranks import read_ranks
from taichu.config import CodecConfig, ModelConfig
from taichu.data.layout import GROUPED, Segment, Span
from taichu.data.packing import BatchShape, Layout, pack
from taichu.model.backbone import Backbone
from taichu.model.stage_parts import gather_tensors
from taichu.training.objectives import Objective
from taichu.training.pipeline import make_training_step
from taichu.vocabulary import JointIds

STEPS, PARTS = 4, 2
MATRICES = {
    "data": {},
    "optimizer": {"shard": "optimizer"},
    "parameters": {"shard": "parameters"},
    "tensor": {"tensor": 2},
    "sharded sequence": {"sequence": 2, "shard": "parameters"},
    "pipeline": {"pipeline": 2},
    "stages": {"pipeline": 4},
    "recomputed tensor pipeline": {"pipeline": 2, "tensor": 2},
    "sequence pipeline": {"pipeline": 2, "sequence": 2, "shard": "parameters"},
    "expert": {"expert": 2},
    "expert parameters": {"expert": 2, "shard": "parameters"},
    "untied expert pipeline": {"pipeline": 2},
    "tensor of experts": {"expert": 2, "tensor": 2},
    "sequence of experts": {"expert": 2, "sequence": 2, "shard": "optimizer"},
}
IDS = JointIds(40, {"image": 8})
SHAPE = BatchShape(5, 32, 80, 6, (("image", 16, 6),))
SIZE = ModelConfig(
    width=16,
    depth=2,
    heads=4,
    key_value_heads=2,
    head_size=8,
    hidden=24,
    embedding=6,
    pieces=0,
    bias=True,
    modalities={"image": {}},
    codecs={"image": CodecConfig((4, 2))},
)
# room for all tokens: what two ranks would drop is not what one would of both's
OF_EXPERTS = replace(SIZE, experts=4, expert_capacity=4.0)


def draw_arrays(step: int, part: int):
    """One part of a step's batch."""
    random = np.random.default_rng((step, part))
    where = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], np.int32)
    layouts = []
    for n in range(4 - part):  # parts of different sizes
        drawn = random.standard_normal((4, 6), np.float32)
        image = Span("image", patches=drawn, coordinates=where)
        text = Span("text", ids=random.integers(0, 40, 3 + n, np.int32))
        codes = random.integers(IDS.codes("image").start, IDS.codes("image").stop, 4, np.int32)
        made = Span("image", ids=codes, coordinates=where)
        first = Segment((image,), (text,), GROUPED, embedding=1)
        second = Segment((text,), (made,), GROUPED, embedding=1)
        layouts.append(Layout((first, second), 0, 10 * part + n % 3, aligned=True))
    batch, left = pack(layouts, SHAPE, IDS)
    assert not left
    return batch.arrays()


def join_arrays(parts):
    """The batch that all parts make together: rows, patches and pairs one behind the other."""
    rows, patches, pairs = SHAPE.rows, SHAPE.patches[0][1], SHAPE.pairs
    joined = []
    for number, arrays in enumerate(parts):
        arrays = [array.copy() for array in arrays]
        arrays[1][arrays[1] > 0] += number * patches
        arrays[5][arrays[5] > 0] += number * 2 * pairs
        arrays[6] += number * rows * SHAPE.length
        arrays[8] /= len(parts)
        joined.append(arrays)
    return [np.concatenate(of) for of in zip(*joined)]


def train(name: str) -> dict:
    """Losses and norms of the steps, and the parameters they leave."""
    ms.set_seed(3)
    size = OF_EXPERTS if "expert" in name else SIZE
    size = replace(size, tied="untied" not in name, depth=4 if "stages" in name else size.depth)
    objective = Objective(Backbone(size, IDS.size, [(4, 6)]), IDS)
    optimizer = AdamW(objective.trainable_params(), 0.02, clip=0.5)
    optimizer.take_parts()
    accumulate = PARTS if "pipeline" in MATRICES[name] else 1
    step = make_training_step(objective, optimizer, accumulate, "recomputed" in name)
    matrix, losses, norms = device_matrix(), [], []
    for number in range(STEPS):
        parts = [draw_arrays(number, part) for part in range(PARTS)]
        if accumulate == 1:
            joined = matrix.ranks.size == 1 and MATRICES[name].keys() <= {"shard", "expert"}
            parts = [join_arrays(parts) if joined else parts[matrix.data.index]]
        made = [step(*map(ms.Tensor, arrays)) for arrays in parts]
        # a pipeline tells the mean of an update's batches
        losses.append(float(np.mean([float(each[0]) for each in made if each])))
        norms.append(float(made[-1][2][0]))
    if matrix.ranks.size > 1:  # the job's loss is the mean of its ranks'
        total = ms.ops.AllReduce()(ms.Tensor(losses, ms.float32)).asnumpy()
        losses = (total / matrix.ranks.size).tolist()
    parameters = {name: array.tolist() for name, array in gather_tensors(objective).items()}
    return {"losses": losses, "norms": norms, "parameters": parameters}


def main(out: str, *names: str):
    choose_device("CPU")
    made = {}
    for name in names:
        settings = MATRICES[name] if read_ranks().size > 1 else {}
        matrix = choose_device_matrix(ParallelConfig(**settings))
        made[name] = train(name)
        print(name, matrix.ranks, made[name]["losses"], flush=True)
    if matrix.ranks.first:
        with open(out, "w") as file:
            json.dump(made, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
