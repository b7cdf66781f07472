"""What is learned of a teacher, against NumPy and torch; and that the teacher stays as it is."""

from collections import Counter
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from ascend.operators import AdamW
from ascend.operators.form import LIBRARY
from ascend.profile import profile_kernels
from taichu.config import ModelConfig
from taichu.errors import ConfigError
from taichu.model.backbone import Backbone
from taichu.training.distillation import DistillationConfig, DistillationObjective
from taichu.training.objectives import Objective
from taichu.training.step import TrainingStep

TEACHER = ModelConfig(
    width=24, depth=3, heads=2, key_value_heads=1, head_size=12, hidden=32, embedding=6, pieces=0
)
STUDENT = replace(TEACHER, width=16, depth=1, head_size=8)
SETTINGS = DistillationConfig(temperature=1.7, decoding_weight=0.6, embedding_weight=2.5)


def backbone(vocabulary, config, seed=1) -> Backbone:
    ms.set_seed(seed)
    return Backbone(config, vocabulary.size, [(4, 6), (3, 4)])


@pytest.fixture
def student(cpu, vocabulary):
    return backbone(vocabulary, STUDENT)


@pytest.fixture
def teacher(cpu, vocabulary):
    return backbone(vocabulary, TEACHER, seed=2)


def taught(student, teacher, vocabulary, settings=SETTINGS, alignment_weight=1.5, decoding=True):
    return DistillationObjective(
        student, vocabulary, alignment_weight, decoding, teacher=teacher, config=settings
    )


def softmax(x):
    shifted = np.exp(x - x.max())
    return shifted / shifted.sum()


def distances(student, teacher, batch, T) -> tuple[float, float]:
    """T^2 KL(teacher || student) over the decoded tokens, weighted, and the mean of 1 - cosine of
    the pairs' sides, in float64 from what both backbones give."""
    arrays = [ms.Tensor(array) for array in batch.arrays()]
    logits, vectors = [], []
    for one in (teacher, student):
        hidden = one(*arrays[:5], *arrays[12:])
        decoded = one.decode(hidden[ms.Tensor(batch.positions)])
        logits.append(decoded.asnumpy().astype(np.float64))
        vectors.append(one.embed(hidden, arrays[5], 10).asnumpy().astype(np.float64))
    apart = 0.0
    for m, (low, high) in enumerate(batch.ranges):
        p, q = (softmax(rows[m, low:high] / T) for rows in logits)
        apart += batch.weights[m] * T**2 * (p * np.log(p / q)).sum()
    pairs = [n for n, group in enumerate(batch.pair_group) if group >= 0]
    assert len(pairs) == 4
    cosines = [
        u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        for n in pairs
        for u, v in zip(vectors[0][2 * n : 2 * n + 2], vectors[1][2 * n : 2 * n + 2])
    ]
    return apart, np.mean(1 - np.array(cosines))


def test_the_loss_is_the_usual_one_and_both_distances(student, teacher, batch, vocabulary):
    arrays = [ms.Tensor(array) for array in batch.arrays()]
    usual, usual_parts = Objective(student, vocabulary, 1.5)(*arrays)
    loss, parts = taught(student, teacher, vocabulary)(*arrays)
    decoding, embedding = distances(student, teacher, batch, 1.7)
    assert decoding > 0.1 and embedding > 0.1
    np.testing.assert_allclose(parts[-2:].asnumpy(), [decoding, embedding], rtol=2e-5)
    np.testing.assert_allclose(parts[:-2].asnumpy(), usual_parts.asnumpy(), rtol=1e-6)
    assert float(loss) == pytest.approx(float(usual) + 0.6 * decoding + 2.5 * embedding, rel=1e-5)


def test_each_distance_can_be_left_out(student, teacher, batch, vocabulary):
    arrays = [ms.Tensor(array) for array in batch.arrays()]
    decoding, embedding = distances(student, teacher, batch, 1.7)
    for settings, alignment_weight, decodes, expected in (
        (replace(SETTINGS, decoding_weight=0.0), 1.5, True, [0, embedding]),
        (replace(SETTINGS, embedding_weight=0.0), 1.5, True, [decoding, 0]),
        (SETTINGS, 0.0, True, [decoding, 0]),
        (SETTINGS, 1.5, False, [0, embedding]),
    ):
        usual = Objective(student, vocabulary, alignment_weight, decodes)(*arrays)[0]
        objective = taught(student, teacher, vocabulary, settings, alignment_weight, decodes)
        loss, parts = objective(*arrays)
        np.testing.assert_allclose(parts[-2:].asnumpy(), expected, rtol=2e-5)
        added = np.dot([0.6, 2.5], expected)
        assert float(loss) == pytest.approx(float(usual) + added, rel=1e-5)
        assert len(objective.part_names) == len(parts)


def test_the_gradients_are_those_of_torch(student, teacher, vocabulary, seeded):
    torch = pytest.importorskip("torch")
    objective = taught(student, teacher, vocabulary)
    ranges = np.array([[0, 9], [2, 6], [3, 4]], np.int32)
    pull = seeded.standard_normal(3).astype(np.float32)
    p, q = (2 * seeded.standard_normal((3, 9)).astype(np.float32) for _ in range(2))

    def ours(p, q):
        return (objective.divergence(p, q, ms.Tensor(ranges)) * ms.Tensor(pull)).sum()

    found = ms.grad(ours, 1)(ms.Tensor(p), ms.Tensor(q)).asnumpy()
    z = torch.tensor(q, dtype=torch.float64, requires_grad=True)
    for m, (low, high) in enumerate(ranges):
        logs = torch.log_softmax(z[m, low:high] / 1.7, -1)
        target = torch.softmax(torch.tensor(p[m, low:high], dtype=torch.float64) / 1.7, -1)
        kl = torch.nn.functional.kl_div(logs, target, reduction="sum")
        (1.7**2 * float(pull[m]) * kl).backward()
    np.testing.assert_allclose(found, z.grad.numpy(), atol=2e-6)

    group = np.array([0, 1, -1], np.int32)
    u, v = (seeded.standard_normal((6, 5)) for _ in range(2))
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))

    def ours(v):
        return objective.distance(ms.Tensor(u, ms.float32), v, ms.Tensor(group))

    found = ms.grad(ours)(ms.Tensor(v, ms.float32)).asnumpy()
    v = torch.tensor(v, requires_grad=True)
    similarity = (torch.tensor(u)[:4] * v[:4]).sum(1)
    (1 - similarity).mean().backward()
    np.testing.assert_allclose(found, v.grad.numpy(), atol=1e-6)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_of_it(teacher, batch, vocabulary):
    same = backbone(vocabulary, TEACHER, seed=2)
    arrays = [ms.Tensor(array) for array in batch.arrays()]
    objective = taught(same, teacher, vocabulary)
    loss, parts = objective(*arrays)
    np.testing.assert_allclose(parts[-2:].asnumpy(), 0, atol=1e-6)
    usual = Objective(same, vocabulary, 1.5)
    assert float(loss) == pytest.approx(float(usual(*arrays)[0]), rel=1e-6)
    of = [
        ms.value_and_grad(one, None, one.trainable_params(), has_aux=True)(*arrays)[1]
        for one in (objective, usual)
    ]
    assert len(of[0]) == len(of[1])
    for found, expected in zip(*of):
        np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), atol=1e-4)


def test_the_teacher_is_not_trained(student, teacher, batch, vocabulary):
    objective = taught(student, teacher, vocabulary)
    own = {id(parameter) for parameter in student.trainable_params()}
    assert {id(parameter) for parameter in objective.trainable_params()} == own
    names = [parameter.name for parameter in objective.get_parameters()]
    assert len(names) == len(set(names))
    before = {n: p.asnumpy().copy() for n, p in teacher.parameters_and_names()}
    moving = {n: p.asnumpy().copy() for n, p in student.parameters_and_names()}
    optimizer = AdamW(objective.trainable_params(), 1e-2)
    step = TrainingStep(objective, optimizer)
    arrays = [ms.Tensor(array) for array in batch.arrays()]
    parts = [step(*arrays)[1].asnumpy() for _ in range(8)]
    assert (parts[-1][-2:] < 0.95 * parts[0][-2:]).all()
    for name, parameter in teacher.parameters_and_names():
        assert (parameter.asnumpy() == before[name]).all(), name
    moved = [n for n, p in student.parameters_and_names() if (p.asnumpy() != moving[n]).any()]
    assert {"projection.weight", "blocks.0.attention.query.weight", "table.own"} <= set(moved)


@pytest.mark.skipif(not LIBRARY, reason="the compiled kernels are not built")
def test_a_step_costs_the_teacher_s_forward_pass_more(student, teacher, batch, vocabulary):
    """Products, and kernels of ours: those of the student's step, and the teacher's run once."""
    arrays = [ms.Tensor(array) for array in batch.arrays()]

    def count(call) -> tuple[int, int]:
        call()
        counts = Counter()
        for kernel in profile_kernels(call):
            ours = kernel.operator.startswith(("Compiled", "Custom"))
            counts["ours" if ours else kernel.operator] += kernel.calls
        return counts["MatMul"], counts["ours"]

    def of_step(objective) -> tuple[int, int]:
        step = TrainingStep(objective, AdamW(objective.trainable_params(), 1e-3))
        return count(lambda: step(*arrays)[0].asnumpy())

    alone = Objective(teacher, vocabulary)

    def predict(*arrays):
        hidden = teacher(*arrays[:5], *arrays[12:])
        return alone.predict(hidden, arrays[5], arrays[6], arrays[10])

    forward = ms.jit(predict)
    once = count(lambda: [x.asnumpy() for x in forward(*arrays)])
    usual = of_step(Objective(student, vocabulary))
    whole = of_step(taught(student, teacher, vocabulary))
    assert min(once) > 10
    np.testing.assert_array_equal(whole, np.add(usual, once))


def test_refusals(student, teacher, vocabulary):
    wide = backbone(vocabulary, replace(STUDENT, embedding=8))
    with pytest.raises(ConfigError, match="student.embedding=8 must be the teacher's 6"):
        taught(wide, teacher, vocabulary)
    taught(wide, teacher, vocabulary, replace(SETTINGS, embedding_weight=0.0))
    other = Backbone(TEACHER, vocabulary.size + 1, [(4, 6), (3, 4)])
    with pytest.raises(ConfigError, match="student: its vocabulary has"):
        taught(student, other, vocabulary)
    objective = taught(student, teacher, vocabulary)
    with pytest.raises(ConfigError, match="train.recompute.*distillation"):
        TrainingStep(objective, AdamW(objective.trainable_params(), 0.1), recompute=True)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"decoding_weight": -1.0}, {"embedding_weight": -0.5}]
)
def test_wrong_settings_are_named(settings):
    (key,) = settings
    with pytest.raises(ConfigError, match=f"distillation.{key}: must be"):
        DistillationConfig(**settings)
