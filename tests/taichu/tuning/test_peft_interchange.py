"""Adapters of a language model go to `peft` and come from it: equal logits and gradients."""

import copy
import dataclasses
import functools

import mindspore as ms
import numpy as np
import pytest

from taichu.config import ModelConfig
from taichu.errors import TaichuError
from taichu.model.backbone import Backbone
from taichu.storage.checkpoint import load_parameters, named_parameters
from taichu.tuning.adalora import AdaLora
from taichu.tuning.dora import Dora
from taichu.tuning.ia3 import Ia3
from taichu.tuning.lora import Lora
from taichu.tuning.p_tuning_v2 import PTuningV2
from taichu.tuning.peft_folder import read_adapter, save_adapter
from taichu.tuning.peft_names import to_peft
from taichu.tuning.prompt import PromptTuning
from taichu.tuning.trainable_tokens import TrainableTokens
from taichu.tuning.tuned import tune
from taichu.vocabulary import control_tokens
from tests.taichu.tuning.trial import disturb

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

V = 60
CONTROL = len(control_tokens(()))  # ids behind those of text, which are theirs too
SIZE = ModelConfig(
    width=32,
    depth=2,
    heads=4,
    key_value_heads=2,
    head_size=8,
    hidden=48,
    embedding=16,
    pieces=0,
    query_key_norm=False,
    bias=True,
    tied=False,
    scaled_ids=False,
)
IDS = np.random.default_rng(2).integers(0, V, (2, 9)).astype(np.int32)
TOKENS = tuple(int(i) for i in dict.fromkeys(IDS[0, 2:8]))  # some that occur
MODULES = ("table", "head", "norm", "key", "blocks.1.*_norm")
OURS = {
    "lora": Lora(rank=4, alpha=6, targets=("query", "value", "down")),
    "some blocks": Lora(rank=4, targets=("blocks.1.attention.*",)),
    "rslora": Lora(rank=4, alpha=6, rank_stabilised=True),
    "dora": Dora(rank=3, alpha=6),
    "ia3": Ia3(),
    "adalora": AdaLora(steps=9, initial_rank=3, target_rank=2),
    "p-tuning": PTuningV2(places=5),
    "prompt": PromptTuning(places=4),
    "tokens": TrainableTokens(tokens=TOKENS),
    "tokens of the table": TrainableTokens(tokens=TOKENS, targets=("table",)),
    "lora beside modules": Lora(rank=2, targets=("query",), modules_to_save=MODULES),
    "ia3 beside modules": Ia3(modules_to_save=("head", "blocks.0.feed_forward_norm")),
    "lora, tied": Lora(rank=4),
    "lora beside the table, tied": Lora(rank=4, modules_to_save=("table",)),
    "tokens, tied": TrainableTokens(tokens=TOKENS),
}
Q_V_DOWN = ["q_proj", "v_proj", "down_proj"]
THEIRS = {
    "lora": dict(kind="LoraConfig", r=4, lora_alpha=6, target_modules=Q_V_DOWN),
    "expression": dict(kind="LoraConfig", r=2, target_modules=r".*layers\.1\.mlp\.(up|down)_proj"),
    "one layer": dict(
        kind="LoraConfig", r=2, target_modules=["q_proj", "down_proj"], layers_to_transform=[1]
    ),
    "but one": dict(
        kind="LoraConfig", r=2, target_modules=Q_V_DOWN, exclude_modules=["0.self_attn.q_proj"]
    ),
    "rslora": dict(
        kind="LoraConfig", r=4, lora_alpha=6, use_rslora=True, target_modules="all-linear"
    ),
    "dora": dict(kind="LoraConfig", r=3, lora_alpha=6, use_dora=True, target_modules=Q_V_DOWN),
    "ia3": dict(
        kind="IA3Config",
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "adalora": dict(
        kind="AdaLoraConfig", init_r=3, target_r=2, total_step=9, target_modules=Q_V_DOWN
    ),
    "p-tuning": dict(kind="PrefixTuningConfig", num_virtual_tokens=5),
    "prompt": dict(kind="PromptTuningConfig", num_virtual_tokens=4),
    "tokens": dict(
        kind="TrainableTokensConfig",
        token_indices=list(TOKENS),
        target_modules=["embed_tokens", "lm_head"],
    ),
    "tokens of the table": dict(kind="TrainableTokensConfig", token_indices=list(TOKENS)),
    "lora beside modules": dict(
        kind="LoraConfig",
        r=2,
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens", "lm_head", "norm", "layers.1.self_attn.k_proj"],
    ),
    "expression beside modules": dict(
        kind="LoraConfig", r=2, target_modules=r".*1\.self_attn\.q_proj", modules_to_save=["k_proj"]
    ),
    "lora, tied": dict(kind="LoraConfig", r=4, target_modules="all-linear"),
    "lora beside the table, tied": dict(
        kind="LoraConfig",
        r=4,
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens"],
        ensure_weight_tying=True,
    ),
    "tokens, tied": dict(kind="TrainableTokensConfig", token_indices=list(TOKENS)),
}


@functools.cache
def draw_language(tied: bool):
    """A small Qwen2 of `transformers`, its every parameter drawn."""
    torch.manual_seed(5)
    config = transformers.Qwen2Config(
        vocab_size=V,
        hidden_size=SIZE.width,
        num_hidden_layers=SIZE.depth,
        num_attention_heads=SIZE.heads,
        num_key_value_heads=SIZE.key_value_heads,
        intermediate_size=SIZE.hidden,
        rms_norm_eps=SIZE.norm_epsilon,
        rope_theta=SIZE.rope_base,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    model = transformers.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.25)
    return model


@pytest.fixture
def language(name):
    """For the tests of a name: its head is tied where the name says so."""
    return draw_language("tied" in name)


def twin(language) -> Backbone:
    """The same model of ours."""
    tied = language.config.tie_word_embeddings
    backbone = Backbone(dataclasses.replace(SIZE, tied=tied), V + CONTROL, [])
    theirs = {name: p.detach().numpy() for name, p in language.named_parameters()}
    tensors = {}
    for name, parameter in named_parameters(backbone).items():
        path, _, last = name.rpartition(".")
        key = f"{to_peft(path)}.{'weight' if last == 'own' else last}"
        tensors[name] = parameter.asnumpy().copy()
        if key in theirs:
            tensors[name][: len(theirs[key])] = theirs[key]
    load_parameters(named_parameters(backbone), tensors, "the twin")
    return backbone


def logits(backbone):
    """Of the ids and for those of text, (rows, L, V)."""
    (rows, L), zeros = IDS.shape, ms.Tensor(np.zeros_like(IDS))
    coords = np.broadcast_to(np.arange(L, dtype=np.int32)[None, :, None], (rows, L, 3))
    hidden = backbone(ms.Tensor(IDS), zeros, ms.Tensor(coords.copy()), zeros + 1, zeros)
    return backbone.decode(hidden).reshape((rows, L, -1))[..., :V]


def their_logits(model) -> np.ndarray:
    with torch.no_grad():
        return of_ids(model).numpy()


def of_ids(model):
    """Their logits of the ids, without those of prompts before them."""
    return model(input_ids=torch.tensor(IDS, dtype=torch.long)).logits[:, -IDS.shape[1] :]


@pytest.mark.parametrize("name", ["own head", "tied head"])
def test_the_twin_is_one(name, cpu, language):
    np.testing.assert_allclose(logits(twin(language)).asnumpy(), their_logits(language), atol=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_peft_loads_ours(name, cpu, language, tmp_path):
    backbone = twin(language)
    plain = logits(backbone).asnumpy()
    tuned = tune(backbone, OURS[name])
    disturb(tuned.trained.values(), size=0.2)
    expected = logits(backbone).asnumpy()
    assert np.abs(expected - plain).max() > 0.05
    folder = save_adapter(tuned, tmp_path, "twin")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(language), folder)
    np.testing.assert_allclose(their_logits(loaded), expected, atol=1e-4)


@pytest.mark.parametrize("name", THEIRS)
def test_we_load_peft_s_and_the_gradients_agree(name, cpu, language, tmp_path):
    settings = dict(THEIRS[name])
    config = getattr(peft, settings.pop("kind"))(task_type="CAUSAL_LM", **settings)
    torch.manual_seed(3)
    model = peft.get_peft_model(copy.deepcopy(language), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    model.eval()
    expected = their_logits(model)
    assert np.abs(expected - their_logits(language)).max() > 0.05

    backbone = twin(language)
    adapter = read_adapter(tmp_path, backbone, named_parameters(backbone))
    tuned = tune(backbone, adapter.method)
    tuned.load(adapter.tensors, str(tmp_path))
    np.testing.assert_allclose(logits(backbone).asnumpy(), expected, atol=1e-4)

    pull = np.random.default_rng(4).standard_normal(expected.shape).astype(np.float32)
    (of_ids(model) * torch.tensor(pull)).sum().backward()
    theirs = {n: p.grad.numpy() for n, p in model.named_parameters() if p.requires_grad}
    parameters = ms.ParameterTuple(list(tuned.trained.values()))
    pull = ms.Tensor(pull)
    gradients = ms.value_and_grad(lambda: (logits(backbone) * pull).sum(), None, parameters)()[1]
    assert len(theirs) == len(gradients)
    for name, gradient in zip(tuned.trained, gradients):
        path, _, part = name.rpartition(".")
        marks = [to_peft(path), "weight" if part == "own" else part]
        grads = [g for key, g in theirs.items() if all(mark in key for mark in marks)]
        if not path:  # the one matrix of a prefix
            grads = list(theirs.values())
        assert len(grads) == 1, (name, list(theirs))
        scale = np.abs(grads[0]).max()
        found = gradient.asnumpy()
        found = found[:V] if part == "own" else found
        wanted = grads[0].reshape(found.shape)
        np.testing.assert_allclose(found / scale, wanted / scale, atol=2e-4)

    if adapter.method.mergeable:
        tuned.merge()
        np.testing.assert_allclose(logits(backbone).asnumpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["tied head"])
@pytest.mark.parametrize("apart", [["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_a_table_trained_apart_from_the_head_that_is_tied_to_it(apart, cpu, language, tmp_path):
    """Such a model is not tied any more, and ours stays so."""
    settings = dict(r=2, target_modules=["q_proj"], modules_to_save=apart)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(copy.deepcopy(language), config)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.2)
    model.save_pretrained(tmp_path)
    backbone = twin(language)
    with pytest.raises(TaichuError, match="apart from the head|lm_head"):
        read_adapter(tmp_path, backbone, named_parameters(backbone))
