"""Adapters on a loaded model: stacked, switched, weighted, merged, and refused."""

import json

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from taichu import Sampling, Taichu
from taichu.command_line import main
from taichu.errors import CheckpointError, ConfigError, TuningError
from taichu.inference.adapters import Adapters, merge
from taichu.storage.checkpoint import named_parameters
from taichu.tuning.bitfit import BitFit
from taichu.tuning.bottleneck import Bottleneck
from taichu.tuning.ia3 import Ia3
from taichu.tuning.lora import Lora
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.peft_folder import CONFIG, TENSORS, save_adapter
from taichu.tuning.prompt import PromptTuning
from taichu.tuning.tuned import tune
from tests.taichu.tuning.trial import disturb

METHODS = {
    "lora": Lora(rank=2, alpha=4, targets=("query", "down"), modules_to_save=("projection",)),
    "ia3": Ia3(),
    "bitfit": BitFit(),
    "prompt": PromptTuning(places=3),
    "prefix": PTuningV2(places=3),
    "bottleneck": Bottleneck(width=4),
}
QUERY = "blocks.1.attention.query.weight"


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory) -> dict:
    """Name -> (folder, hidden states of the tuned backbone), of each method."""
    found = {}
    for seed, (name, method) in enumerate(METHODS.items()):
        model = Taichu.from_pretrained(tiny_folder)
        tuned = tune(model.backbone, method)
        disturb(tuned.trained.values(), seed)
        folder = save_adapter(tuned, tmp_path_factory.mktemp("adapters") / name, str(tiny_folder))
        found[name] = folder, hidden(model)
    return found


def hidden(model) -> np.ndarray:
    """Of a row of ids."""
    ids = np.random.default_rng(1).integers(0, 300, (1, 8)).astype(np.int32)
    zeros, coords = np.zeros_like(ids), np.arange(8, dtype=np.int32)[None, :, None].repeat(3, 2)
    patches = [ms.Tensor(np.zeros(grid), ms.float32) for grid in model.grids.values()]
    planes = map(ms.Tensor, (ids, zeros, coords, zeros + 1, zeros))
    return model.backbone(*planes, *patches).asnumpy()


def low_rank(tensors, module: str) -> np.ndarray:
    """B A of a module."""
    return tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


@pytest.fixture
def held(tiny_folder) -> Adapters:
    return Adapters(Taichu.from_pretrained(tiny_folder))


def test_weights_are_added_up_and_taken_away(held, made, contents):
    model = held.model
    base = {name: p.asnumpy().copy() for name, p in named_parameters(model.backbone).items()}
    content = [{"text": "a red seven"}, {"image": contents["image"]}]
    plain = model.embed_many(content)
    assert held.add(made["lora"][0]) == "lora"
    np.testing.assert_allclose(hidden(model), made["lora"][1], atol=1e-5)
    tuned = model.embed_many(content)  # by the graph that was compiled without it
    assert np.abs(tuned - plain).max() > 0.01

    held.add(made["ia3"][0], "factors")
    held.use({"lora": 0.5, "factors": -2.0})
    lora, ia3 = (load_file(made[name][0] / TENSORS) for name in ("lora", "ia3"))
    at = "base_model.model.model.layers.1"
    low = low_rank(lora, f"{at}.self_attn.q_proj")
    now = named_parameters(model.backbone)
    np.testing.assert_allclose(now[QUERY].asnumpy(), base[QUERY] + 0.5 * 2 * low, atol=1e-6)
    down = "blocks.1.feed_forward.down.weight"
    low = low_rank(lora, f"{at}.mlp.down_proj")
    scaled = -2 * (ia3[f"{at}.mlp.down_proj.ia3_l"] - 1) * base[down]
    np.testing.assert_allclose(now[down].asnumpy(), base[down] + low + scaled, atol=1e-6)
    half = base["projection.weight"] + lora["base_model.model.projection.weight"]
    np.testing.assert_allclose(now["projection.weight"].asnumpy(), half / 2, atol=1e-6)

    held.use({})
    for name, parameter in now.items():
        np.testing.assert_array_equal(parameter.asnumpy(), base[name], err_msg=name)
    np.testing.assert_array_equal(model.embed_many(content), plain)
    held.use({"lora": 1})
    np.testing.assert_allclose(model.embed_many(content), tuned, atol=1e-6)
    held.add(made["bitfit"][0])
    held.use({"bitfit": 1})
    np.testing.assert_allclose(hidden(model), made["bitfit"][1], atol=1e-5)


def test_what_stands_in_the_graphs_is_switched_and_weighted(held, made, tiny, contents):
    model, greedy = held.model, Sampling(temperature=0)
    plain, condition = hidden(model), {"image": contents["image"]}
    vectors = tiny.embed_many([condition])
    for name in ("prompt", "prefix", "bottleneck"):
        held.add(made[name][0])
    held.add(made["prompt"][0], "again")
    for name in ("prompt", "prefix", "bottleneck"):
        held.use({name: 1})
        np.testing.assert_allclose(hidden(model), made[name][1], atol=2e-5)
    held.use({"prompt": 2.0})  # counts as if it stood there twice
    twice = hidden(model)
    held.use({"prompt": 1, "again": 1})
    np.testing.assert_allclose(hidden(model), twice, atol=1e-5)
    assert np.abs(twice - made["prompt"][1]).max() > 1e-3

    held.use({"prompt": 1, "bottleneck": 1})
    other, moved = model.generate("text", greedy, text="a red"), model.embed_many([condition])
    held.use({})
    np.testing.assert_allclose(hidden(model), plain, atol=1e-5)
    back = model.generate("text", greedy, text="a red")
    assert abs(back.log_likelihood - other.log_likelihood) > 1e-2
    np.testing.assert_allclose(model.embed_many([condition]), vectors, atol=1e-5)
    assert np.abs(moved - vectors).max() > 1e-2


@pytest.mark.parametrize("name", ["lora", "bitfit"])
def test_the_command_merges(name, made, tiny_folder, tmp_path, capsys):
    folder = str(made[name][0])
    assert main(["merge", str(tiny_folder), folder, str(tmp_path / "out")]) == 0
    model = Taichu.from_pretrained(tmp_path / "out")
    assert model.config.bias == (name == "bitfit")
    np.testing.assert_allclose(hidden(model), made[name][1], atol=1e-5)
    if name == "lora":
        half = merge(tiny_folder, folder, tmp_path / "half", 0.5)
        base, whole, half = (
            load_file(f / "model.safetensors") for f in (tiny_folder, tmp_path / "out", half)
        )
        for path in base:
            np.testing.assert_allclose(half[path], (base[path] + whole[path]) / 2, atol=1e-6)
    assert main(["merge", str(tiny_folder), str(made["prompt"][0]), str(tmp_path / "no")]) == 1
    assert "cannot be merged" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_use_refuses_what_is_not_there(held, made):
    held.add(made["lora"][0], "lora")
    held.add(made["prompt"][0], "prompt")
    for weights in ({"lora": float("nan")}, {"prompt": -1.0}):
        with pytest.raises(TuningError, match="means nothing"):
            held.use(weights)
    with pytest.raises(TuningError, match="did you mean 'lora'"):
        held.use({"lore": 1.0})
    with pytest.raises(TuningError, match="already"):
        held.add(made["lora"][0], "lora")
    assert held.weights == {"lora": 1.0, "prompt": 1.0}


def spoilt(folder, tmp_path, change=None, **settings):
    """A copy of an adapter with other tensors or settings."""
    tensors = load_file(folder / TENSORS)
    content = json.loads((folder / CONFIG).read_text())
    if change:
        change(tensors)
    (tmp_path / CONFIG).write_text(json.dumps({**content, **settings}))
    save_file(tensors, tmp_path / TENSORS)
    return tmp_path


def clear(tensors, part):
    """Set to zero what is called so."""
    for key in tensors:
        if part in key:
            tensors[key] *= 0


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "settings", "error", "said"),
    [
        (lambda t: t.pop(KEY), {}, CheckpointError, f"{KEY}' is missing"),
        (lambda t: t.update(x=t[KEY]), {}, CheckpointError, "'x' is not part"),
        (lambda t: t.update({KEY: t[KEY][:, 1:]}), {}, CheckpointError, "wants \\[2, 32\\]"),
        (lambda t: clear(t, "lora_B"), {}, TuningError, "changes nothing"),
        (None, {"target_modules": ["q_proj", "wqkv"]}, TuningError, "no 'wqkv'"),
        (None, {"target_modules": None}, TuningError, "target_modules: names nothing"),
        (None, {"target_modules": ["q_proj"]}, CheckpointError, "not part of this adapter"),
        (None, {"peft_type": "VERA"}, TuningError, "'VERA' is not known"),
        (None, {"init_lora_weights": "pissa"}, TuningError, "has changed the base"),
        (None, {"alpha_pattern": {"q_proj": 3}}, ConfigError, "alpha_pattern: unknown key"),
        (None, {"modules_to_save": ["lm_head"]}, TuningError, "'lm_head' names nothing"),
        (None, {"layers_to_transform": "0"}, ConfigError, "must be a list of numbers"),
        (None, {"layers_to_transform": [9]}, TuningError, "the model has no"),
        (None, {"exclude_modules": [1]}, ConfigError, "must be a list of names"),
        (None, {"r": "two"}, ConfigError, "rank: must be int"),
        (None, {"r": 3}, CheckpointError, "wants \\[3, 32\\]"),
    ],
)
def test_a_spoilt_adapter_is_refused(change, settings, error, said, held, made, tmp_path):
    with pytest.raises(error, match=said):
        held.add(spoilt(made["lora"][0], tmp_path, change, **settings))
    assert not held.held


def test_an_adapter_of_another_base_is_refused(held, made):
    parameter = held.base["norm.weight"]
    parameter.set_data(parameter + 1e-3)
    with pytest.raises(TuningError, match="another base"):
        held.add(made["lora"][0])


def test_an_untrained_one_is_not_saved(held, tmp_path):
    tuned = tune(held.model.backbone, METHODS["lora"])
    with pytest.raises(TuningError, match="changes nothing"):
        save_adapter(tuned, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_patterns_that_name_nothing_are_refused(held):
    backbone = held.model.backbone
    with pytest.raises(TuningError, match="targets: 'queri' names nothing; did you mean 'query'"):
        tune(backbone, Lora(targets=("queri",)))
    with pytest.raises(TuningError, match="is what the method is put beside"):
        tune(backbone, Lora(targets=("query",), modules_to_save=("blocks.0.attention",)))
