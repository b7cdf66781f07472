"""Every method: where it starts, what it trains, its gradients, its folder, its merging."""

import mindspore as ms
import numpy as np
import pytest

from taichu.errors import TuningError
from taichu.storage.checkpoint import named_parameters
from taichu.training.recomputation import RecomputedGradient
from taichu.training.stage import Stage
from taichu.training.step import TrainingStep
from taichu.tuning.peft_folder import read_adapter, save_adapter
from taichu.tuning.tuned import tune
from tests.taichu.tuning.trial import METHODS, disturb

SEEN = {"prefix", "p_tuning_v2", "prompt"}  # what is seen from the start changes what is computed


@pytest.mark.parametrize("name", METHODS)
def test_training_changes_what_is_named_and_the_folder_and_the_merged_model_equal_it(
    name, trial, tmp_path
):
    method, one = METHODS[name], trial()
    start = one.hidden()
    tuned = tune(one.backbone, method)
    changed = np.abs(one.hidden() - start).max()
    assert changed > 1e-2 if name in SEEN else changed < 2e-6

    before = {n: p.asnumpy().copy() for n, p in named_parameters(one.backbone).items()}
    trained = {id(p) for p in tuned.trained.values()}
    assert {id(p) for p in one.objective.trainable_params()} == trained
    step = TrainingStep(one.objective, tuned.optimizer(0.01, weight_decay=0.0))
    losses = [float(step(*one.arrays)[0].asnumpy()) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.01
    for path, parameter in named_parameters(one.backbone).items():
        same = np.array_equal(parameter.asnumpy(), before[path])
        # what the objective does not read has no gradient
        unread = path.startswith(("projection", "patch_embedders.1", "log_scale"))
        cut = path.endswith("lora_E") and not parameter.asnumpy().any()  # a map may lose all ranks
        assert same == (id(parameter) not in trained or unread or cut), path

    out, loss = one.hidden(), one.loss()
    assert np.abs(out - start).max() > 1e-3
    folder = save_adapter(tuned, tmp_path / name, "base")
    other = trial()
    adapter = read_adapter(folder, other.backbone, named_parameters(other.backbone))
    again = tune(other.backbone, adapter.method)
    again.load(adapter.tensors, str(folder))
    np.testing.assert_allclose(other.hidden(), out, atol=1e-5)
    assert abs(other.loss() - loss) < 1e-5

    if method.mergeable:
        tuned.merge()
        np.testing.assert_allclose(one.hidden(), out, atol=1e-5)
        kept = {p for p in named_parameters(one.backbone) if not p.endswith(".bias")}
        assert kept == {p for p in named_parameters(trial().backbone) if not p.endswith(".bias")}
    else:
        with pytest.raises(TuningError, match="cannot be merged"):
            tuned.merge()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"dora"}))  # PEFT's holds DoRA's, see there
def test_gradients_are_those_of_finite_differences(name, trial):
    one = trial()
    tuned = tune(one.backbone, METHODS[name])
    read = [p for n, p in tuned.trained.items() if not n.startswith(("projection", "patch_emb"))]
    disturb(read, size=0.1)
    held = ms.ParameterTuple(read)
    gradients = ms.value_and_grad(lambda: one.objective(*one.arrays)[0], None, held)()[1]
    random, values = np.random.default_rng(1), [p.asnumpy().copy() for p in read]
    for _ in range(2):
        ways = [random.standard_normal(p.shape).astype(np.float32) for p in read]
        expected = sum(float((g.asnumpy() * w).sum()) for g, w in zip(gradients, ways))
        losses = []
        for h in (1e-3, -1e-3):
            for parameter, value, way in zip(read, values, ways):
                parameter.set_data(ms.Tensor(value + h * way))
            losses.append(one.loss())
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(expected, rel=0.02, abs=0.02)


@pytest.mark.parametrize("name", ["lora", "bottleneck"])
def test_blocks_computed_again_give_the_same_gradients(name, trial):
    one = trial()
    tuned = tune(one.backbone, METHODS[name])
    disturb(tuned.trained.values(), size=0.1)
    parameters = ms.ParameterTuple(list(tuned.trained.values()))
    _, expected = ms.value_and_grad(one.objective, None, parameters, has_aux=True)(*one.arrays)
    made = RecomputedGradient(Stage(one.objective), parameters)(None, None, *one.arrays)[2]
    for path, a, b in zip(tuned.trained, made, expected):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), atol=1e-5, err_msg=path)


def test_what_is_trained_is_printed(trial):
    tuned = tune(trial().backbone, METHODS["lora"])
    lines = [line.split() for line in str(tuned).splitlines()]
    assert lines[0] == ["blocks.*.attention.query.lora_A", "1", "of", "4", "x", "32", "128"]
    total = 4 * (32 + 32) + 4 * (32 + 16) + 4 * (48 + 32)  # query, value and down
    total += 6 * 32 + 32 + 4 * 32 + 32 * 16  # a picture's embedder and the projection
    of = sum(p.size for p in tuned.base.values()) + 4 * (64 + 48 + 80)
    assert lines[-1] == ["trained", f"{100 * total / of:.2f}", "%", "of", f"{of:,}", f"{total:,}"]
    assert sum(int(line[-1].replace(",", "")) for line in lines[:-1]) == total
