"""The compiled step: its update, and the averaging of gradients over several batches."""

import mindspore as ms
import numpy as np

from ascend.operators import AdamW
from taichu.training.step import TrainingStep


class Line(ms.nn.Cell):
    """Squared error of y = x w + b."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2))
        self.bias = ms.Parameter(np.zeros(2, np.float32))

    def construct(self, x_N3, y_N2):
        error = ms.ops.matmul(x_N3, self.weight) + self.bias - y_N2
        loss = (error * error).mean(-1).mean()
        return loss, loss.reshape((1,))


def train(batches, accumulate):
    objective = Line()
    optimizer = AdamW(objective.trainable_params(), 0.1, weight_decay=0.1, clip=0.5)
    step = TrainingStep(objective, optimizer, accumulate)
    made = [step(ms.Tensor(x), ms.Tensor(y)) for x, y in batches]
    steps = int(optimizer.global_step.asnumpy()[0])
    return made, [p.asnumpy() for p in objective.trainable_params()], steps


def test_two_gathered_batches_equal_one_of_both(seeded):
    x = seeded.standard_normal((6, 5, 3)).astype(np.float32)
    y = seeded.standard_normal((6, 5, 2)).astype(np.float32)
    whole, expected, steps = train(list(zip(x.reshape(3, 10, 3), y.reshape(3, 10, 2))), 1)
    parts, actual, gathered_steps = train(list(zip(x, y)), 2)
    assert steps == gathered_steps == 3
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for i, (loss, logged, norm) in enumerate(whole):
        first, second = parts[2 * i], parts[2 * i + 1]
        np.testing.assert_allclose((first[0] + second[0]) / 2, loss, rtol=1e-5)
        np.testing.assert_allclose(second[2], norm, rtol=1e-5)
        assert float(first[2][0]) == 0 and float(logged[0]) == float(loss)


def test_the_loss_falls(seeded):
    x = seeded.standard_normal((20, 3)).astype(np.float32)
    y = x @ np.array([[1, 2], [0, -1], [0.5, 0]], np.float32) + 1
    made, _, _ = train([(x, y)] * 60, 1)
    assert float(made[-1][0]) < 0.05 * float(made[0][0])


class Distances(ms.nn.Cell):
    """Half the squared distance of very many parameters from a point."""

    def __init__(self, count: int):
        super().__init__()
        values = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
        self.points = ms.ParameterTuple([ms.Parameter(v, f"p{i}") for i, v in enumerate(values)])
        self.each = ms.ops.HyperMap()

    def construct(self, aim_2):
        loss = ms.ops.concat(self.each(ms.ops.partial(self.distance, aim_2), self.points)).sum()
        return loss, loss.reshape((1,))

    def distance(self, aim_2, point_2):
        return (0.5 * (point_2 - aim_2) ** 2).sum().reshape((1,))


def test_more_parameters_than_calls_may_nest():
    """A thousand calls, of which a loop over parameters would make two a turn (3.8b has 413)."""
    objective, aim = Distances(520), np.array([-1, -2], np.float32)
    before = np.stack([p.asnumpy() for p in objective.points])
    optimizer = AdamW(objective.trainable_params(), 0.5, weight_decay=0)
    step = TrainingStep(objective, optimizer, accumulate=2)
    for _ in range(2):
        _, _, norm = step(ms.Tensor(aim))
    np.testing.assert_allclose(norm.asnumpy()[0], np.linalg.norm(before - aim), rtol=1e-5)
    after = np.stack([p.asnumpy() for p in objective.points])
    np.testing.assert_allclose(after, before - 0.5, rtol=1e-3)  # a first step is the rate's
    assert all(not g.asnumpy().any() for g in step.gathered)
