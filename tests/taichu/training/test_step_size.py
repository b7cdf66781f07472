"""How many kernels a training step of nano runs, and how large its graph is: exactly.

Times are noisy, these numbers are not: a step that grows runs longer or compiles longer. Where a
change makes them smaller, the new ones belong here; where larger, it should say what it wins.
"""

from collections import Counter

import mindspore as ms
import pytest
from mindspore.train import mind_ir_pb2

from ascend.operators import AdamW
from ascend.operators.form import LIBRARY
from ascend.profile import profile_kernels
from taichu.config import load_size
from taichu.data.packing import BatchShape, empty_batch
from taichu.model.backbone import Backbone
from taichu.storage.model_folder import create_adapters
from taichu.training.objectives import Objective
from taichu.training.step import TrainingStep
from taichu.vocabulary import Vocabulary

pytestmark = pytest.mark.skipif(not LIBRARY, reason="the compiled kernels are not built")
GRAPH_NODES = 797  # before MindSpore's backend takes the graph over
KERNELS = {
    "MatMul": 117,
    "Mul": 38,
    "ReduceSum": 27,
    "Div": 19,
    "AddN": 18,
    "CompiledAddRmsNorm": 18,
    "CompiledNormedRotary": 16,
    "Slice": 16,
    "Add": 15,
    "Cast": 13,
    "Equal": 9,
    "CompiledAttention": 8,
    "CompiledSwiglu": 8,
    "Concat": 7,
    "Maximum": 7,
    "Sub": 7,
    "CompiledCrossEntropy": 6,
    "LogicalAnd": 6,
    "Gather": 5,
    "Reshape": 5,
    "UnsortedSegmentSum": 5,
    "Neg": 4,
    "SliceGrad": 3,
    "GreaterEqual": 2,
    "Pow": 2,
    "Tile": 2,
    "Cos": 1,
    "Custom": 1,
    "Exp": 1,
    "Greater": 1,
    "LessEqual": 1,
    "LogicalNot": 1,
    "Minimum": 1,
    "ReduceMax": 1,
    "Select": 1,
    "Sin": 1,
}


@pytest.fixture(scope="module")
def step(cpu, tokenizer, tmp_path_factory):
    """Gives (a call of the compiled step, the folder of its graph)."""
    size = load_size("nano")
    geometries = {name: a.geometry for name, a in create_adapters(size).items()}
    vocabulary = Vocabulary(tokenizer, {name: c.codes for name, c in size.codecs.items()})
    grids = [(g.tokens, g.patch_size) for g in geometries.values()]
    objective = Objective(Backbone(size, vocabulary.size, grids), vocabulary)
    folder = tmp_path_factory.mktemp("graphs")
    step = TrainingStep(objective, AdamW(objective.trainable_params(), 1e-3), graphs=folder)
    patches = tuple((name, 2 * g.tokens, g.patch_size) for name, g in geometries.items())
    batch = empty_batch(BatchShape(4, 64, 128, 8, patches))
    arrays = [ms.Tensor(array) for array in batch.arrays()]

    def call():
        step(*arrays)[0].asnumpy()

    with pytest.MonkeyPatch.context() as patch:
        # a graph is kept only where the script that runs can be read, which xdist's cannot
        patch.setattr("sys.argv", [__file__])
        patch.setattr("mindspore.graph.api.entry_script_path", __file__)
        call()
    return call, folder


def test_kernels(step):
    call, _ = step
    counts = Counter()
    for kernel in profile_kernels(call):
        counts[kernel.operator] += kernel.calls
    assert dict(counts) == KERNELS


def test_nodes_of_the_graph(step):
    _, folder = step
    (path,) = folder.glob("*/graph.mindir")
    graph = mind_ir_pb2.ModelProto.FromString(path.read_bytes())
    assert len(graph.graph.node) == GRAPH_NODES
