"""AdaLoRA's optimizer against the paper's algorithm in float64; ranks equal to the budget."""

import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np

from taichu.training.step import TrainingStep
from taichu.training.trainer import TrainConfig, Trainer
from taichu.tuning.adalora import AdaLora

METHOD = AdaLora(
    steps=14, initial_rank=4, target_rank=2, warmup=2, final=4, interval=2, orthogonality=0.3
)
SHAPES = {"a": (7, 5), "b": (3, 6)}  # outputs and inputs of two maps


class Linear(ms.nn.Cell):
    """A loss whose gradient is what is given: the sum of parameters times it."""

    def __init__(self, parameters):
        super().__init__()
        self.parameters = ms.ParameterTuple(parameters)

    def construct(self, *pulls):
        loss = ms.ops.zeros((), ms.float32)
        for parameter, pull in zip(self.parameters, pulls):
            loss = loss + (parameter * pull).sum()
        return loss, loss.reshape((1,))


def penalty_gradient(p):
    """Of ||p p^T - 1||^2, by central differences in float64, which are exact enough."""

    def penalty(p):
        return ((p @ p.T - np.eye(len(p))) ** 2).sum()

    found = np.zeros_like(p)
    for i in np.ndindex(p.shape):
        h = np.zeros_like(p)
        h[i] = 1e-5
        found[i] = (penalty(p + h) - penalty(p - h)) / 2e-5
    return found


def draw_parameters(random) -> list[ms.Parameter]:
    """Of the maps, and one that is trained beside them."""
    found = []
    for name, (outputs, inputs) in SHAPES.items():
        r = METHOD.initial_rank
        shapes = {"lora_A": (r, inputs), "lora_B": (outputs, r), "lora_E": (r, 1)}
        if name == "b":
            value = random.standard_normal((4, 3)).astype(np.float32)
            found.append(ms.Parameter(value, "another.weight"))
        for part, shape in shapes.items():
            value = random.standard_normal(shape) * (0.4 if part != "lora_E" else 0.1)
            found.append(ms.Parameter(value.astype(np.float32), f"{name}.{part}"))
    return found


def test_ranks_are_shared_out_as_in_the_paper(seeded):
    parameters = draw_parameters(seeded)
    names = [parameter.name for parameter in parameters]
    objective = Linear(parameters)
    rate = 0.01
    optimizer = METHOD.optimizer(parameters, rate, clip=1e9, weight_decay=0.0)
    step = TrainingStep(objective, optimizer)

    state = {n: p.asnumpy().astype(np.float64) for n, p in zip(names, parameters)}
    first, second, mean, spread = ({n: np.zeros_like(v) for n, v in state.items()} for _ in "1234")
    ranks = []
    for t in range(1, METHOD.steps + 1):
        pulls = {n: seeded.standard_normal(v.shape) for n, v in state.items()}
        step(*(ms.Tensor(pulls[n], ms.float32) for n in names))
        gradients = dict(pulls)
        for n in names:
            if n.endswith("lora_A"):
                gradients[n] = pulls[n] + METHOD.orthogonality * penalty_gradient(state[n])
            elif n.endswith("lora_B"):
                gradients[n] = pulls[n] + METHOD.orthogonality * penalty_gradient(state[n].T).T
        for n, g in gradients.items():  # Adam, then equations 8 to 11
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.98 * second[n] + 0.02 * g * g
            deviation = np.sqrt(second[n] / (1 - 0.98**t)) + 1e-8
            state[n] = state[n] - rate * first[n] / (1 - 0.9**t) / deviation
            change = np.abs(state[n] * g)
            mean[n] = 0.85 * mean[n] + 0.15 * change
            spread[n] = 0.85 * spread[n] + 0.15 * np.abs(change - mean[n])
        score = {n: mean[n] * spread[n] for n in names}
        of_rank = np.stack(
            [
                score[f"{m}.lora_A"].mean(1)
                + score[f"{m}.lora_E"][:, 0]
                + score[f"{m}.lora_B"].mean(0)
                for m in SHAPES
            ]
        )
        last = METHOD.steps - METHOD.final
        share = 1 - min(1.0, max(0.0, (t - METHOD.warmup) / (last - METHOD.warmup)))
        budget = math.ceil(4 + 4 * share**3 - 1e-9)
        if METHOD.warmup < t <= last and (t - METHOD.warmup) % METHOD.interval == 0:
            least = np.sort(of_rank.reshape(-1))[-budget]
            alive = of_rank >= least
            assert alive.sum() == budget
        if (METHOD.warmup < t < last and (t - METHOD.warmup) % 2 == 0) or t >= last:
            for m, kept in zip(SHAPES, alive):
                state[f"{m}.lora_E"] *= kept[:, None]
        for n, parameter in zip(names, parameters):
            np.testing.assert_allclose(parameter.asnumpy(), state[n], atol=2e-5, err_msg=f"{t} {n}")
        ranks.append(sum((state[f"{m}.lora_E"] != 0).sum() for m in SHAPES))
    assert ranks[:3] == [8, 8, 8] and ranks[3] == 6
    assert ranks[-5:] == [4] * 5 == [METHOD.target_rank * len(SHAPES)] * 5
    np.testing.assert_array_equal(optimizer.alive.asnumpy(), alive)
    assert len({p.name for p in optimizer.others} | set(names)) == len(names) + 3


def test_a_training_goes_on_with_the_importance_of_its_ranks(cpu, tmp_path):
    def run():
        objective = Linear(draw_parameters(np.random.default_rng(2)))
        shapes = [p.shape for p in objective.parameters]

        def draw(k):
            random = np.random.default_rng((7, k))
            pulls = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
            return SimpleNamespace(arrays=lambda: pulls)

        config = TrainConfig(steps=METHOD.steps, checkpoint_every=5, log_every=5)
        trainer = Trainer(
            objective, draw, ["loss"], config, tmp_path, make_optimizer=METHOD.optimizer
        )
        trainer.run()
        return {p.name: p.asnumpy() for p in (*objective.parameters, *trainer.optimizer.others)}

    expected = run()
    *_, first, last = sorted((tmp_path / "checkpoints").iterdir())
    assert "00000010" in first.name  # ranks have been cut, and are cut once more
    last.unlink()
    found = run()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert expected["alive_ranks"].sum() == 4
