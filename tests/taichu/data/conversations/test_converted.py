"""Converted models converse as `transformers` has them: tokens, loss, greedy answers."""

import mindspore as ms
import numpy as np
import pytest

from taichu import Sampling, Taichu
from taichu.convert.from_hf import convert_from_hf
from taichu.data.conversations.tokens import to_segment, to_spans
from taichu.data.layout import lay_out
from taichu.data.packing import BatchShape, pack_into_rows
from taichu.training.objectives import Objective
from tests.taichu.data.conversations.conftest import PUBLISHED, SPECIAL, talk

KINDS = {"llama3": "Llama", "qwen3": "Qwen3"}
SAID = ["What do you see?", "A seven.", "Sure?", "Yes, top left."]


@pytest.mark.parametrize("name", KINDS)
def test_a_converted_model_converses_as_published(cpu, published_tokenizer, tmp_path, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 448, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = getattr(transformers, f"{KINDS[name]}Config")(**sizes)
    peer = getattr(transformers, f"{KINDS[name]}ForCausalLM")(config).eval()
    for parameter in peer.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)  # so that answers are not all alike
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=published_tokenizer, chat_template=PUBLISHED[name], **SPECIAL
    )
    peer.save_pretrained(tmp_path / "published")
    tokenizer.save_pretrained(tmp_path / "published")
    convert_from_hf(tmp_path / "published", tmp_path / "ours")
    model = Taichu.from_pretrained(tmp_path / "ours")

    messages = [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(SAID)
    ]
    how = {"return_tensors": "pt", "return_dict": True}
    asked = tokenizer.apply_chat_template(messages[:3], add_generation_prompt=True, **how)
    end = model.vocabulary.encode(model.template.end)[0]
    made = peer.generate(**asked, do_sample=False, max_new_tokens=24, eos_token_id=end)
    ids = made[0, asked["input_ids"].shape[1] :].tolist()
    expected = published_tokenizer.decode(ids, skip_special_tokens=False)
    answer = model.chat(messages[:3], Sampling(pieces=24))
    assert answer == expected.removesuffix(model.template.end)

    rendered = model.template.render(talk(*SAID))
    segment = to_segment(to_spans(rendered, model.template, model.vocabulary))
    tokens = lay_out(segment, model.vocabulary)
    whole = tokenizer.apply_chat_template(messages, **how)["input_ids"]
    np.testing.assert_array_equal(tokens.ids, whole[0].numpy())
    labels = torch.tensor(np.append(-100, tokens.target[:-1]))[None].long()
    labels[labels < 0] = -100
    with torch.no_grad():
        expected = float(peer(whole, labels=labels).loss)
    # two in a row are two alike: neither sees the other
    shape = BatchShape(1, 2 * len(segment), 128, 1, ())
    batch = pack_into_rows([[segment, segment]], shape, model.vocabulary)
    loss = Objective(model.backbone, model.vocabulary, 0.0)(*map(ms.Tensor, batch.arrays()))[0]
    assert float(loss) == pytest.approx(expected, abs=1e-5)
