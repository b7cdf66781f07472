"""What is answered is what the model makes; OpenAI's own client reads it unchanged."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import openai
import pytest
import requests
import soundfile

from modality_adapters import create_adapter
from taichu.data.conversations.template import DEFAULT, ChatTemplate
from taichu.inference.sampling import Sampling
from taichu.server.parts import MIME

# ends an answer with text that the tokenizer spells in several pieces
MARKED = (
    "{% for m in messages %}{{ m.role + ':\n' + m.content + '##\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
MODALITIES = ("text", "image", "audio", "video", "shape3d")


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0)


def require_same(made: bytes, expected: Path):
    """A file holds these bytes; of a sound, samples but one step apart: its phases are sums that
    processes with other numbers of threads round otherwise."""
    if expected.suffix != ".wav":
        assert made == expected.read_bytes()
        return
    (heard, rate), (wanted, same) = (
        soundfile.read(file, dtype="int16") for file in (io.BytesIO(made), expected)
    )
    assert rate == same
    np.testing.assert_allclose(heard, wanted, rtol=0, atol=1)


def user(*parts) -> list[dict]:
    return [{"role": "user", "content": list(parts)}]


def paths_of(media, folder) -> dict[str, str]:
    paths = {"text": "a red seven"}
    for name, (data, kind) in media.items():
        path = folder / f"{name}.{kind}"
        path.write_bytes(data)
        paths[name] = str(path)
    return paths


@pytest.mark.parametrize("modality", MODALITIES)
def test_texts_of_every_modality(client, runtime, media, parts, tmp_path, modality):
    expected = runtime.generate(
        into="text", sampling=Sampling(pieces=9), **{modality: paths_of(media, tmp_path)[modality]}
    )
    made = client.chat.completions.create(
        model="tiny", messages=user(parts[modality]), max_completion_tokens=9
    )
    (choice,) = made.choices
    assert choice.message.content == expected.text
    assert choice.finish_reason == ("length" if len(expected.ids) == 9 else "stop")
    assert made.usage.completion_tokens == len(expected.ids)
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_all_modalities_in_one_answer(client, runtime, parts, tmp_path):
    """Each part's file holds what the model makes, in the order asked for."""
    into = ("shape3d", "text", "audio", "video", "image")
    made = client.chat.completions.create(
        model="tiny",
        messages=user(parts["text"]),
        modalities=list(into),
        max_tokens=6,
        temperature=0.9,
        seed=4,
        extra_body={"guidance": 1.5, "top_k": 50, "formats": {"image": "bmp"}},
    )
    message = made.choices[0].message
    sampling = Sampling(temperature=0.9, seed=4, guidance=1.5, top_k=50, pieces=6)
    expected = runtime.generate(into, sampling, text="a red seven")
    assert [part["type"].removesuffix("_url") for part in message.parts] == list(into)
    for part, one in zip(message.parts, expected):
        if one.modality == "text":
            assert part["text"] == one.text == message.content
            continue
        kind, _, data = part[part["type"]]["url"].partition(";base64,")
        suffix = next(s for s, mime in MIME.items() if f"data:{mime}" == kind)
        assert (suffix == ".bmp") == (one.modality == "image")
        require_same(base64.b64decode(data), one.save(tmp_path / f"a{suffix}"))
    sound = message.parts[2]["audio_url"]["url"].partition(",")[2]
    assert message.audio.data == sound and message.audio.transcript == message.content


def test_a_stream_comes_to_the_same(client, parts):
    asked = {
        "model": "tiny",
        "messages": user(parts["image"], parts["text"]),
        "modalities": ["text", "image", "audio"],
        "temperature": 1.0,
        "seed": 8,
        "max_tokens": 12,
        "n": 3,
    }
    whole = client.chat.completions.create(**asked)
    texts, media, reasons, usage = [""] * 3, [[], [], []], [None] * 3, None
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            media[choice.index] += getattr(choice.delta, "parts", None) or []
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3  # each its own draws
    assert media == [choice.message.parts[1:] for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_a_text_comes_in_pieces(client, runtime):
    stream = client.chat.completions.create(
        model="tiny", messages=user(), temperature=1.0, seed=2, max_tokens=30, stream=True
    )
    pieces = [chunk.choices[0].delta.content for chunk in stream]
    pieces = [piece for piece in pieces if piece]
    assert len(pieces) > 5
    sampling = Sampling(temperature=1.0, seed=2, pieces=30)
    assert "".join(pieces) == runtime.generate("text", sampling).text


def test_stop_strings_and_candidates(client, runtime):
    sampling = Sampling(temperature=1.0, seed=2, pieces=30)
    text = runtime.generate("text", sampling).text
    stop = text[5:8]
    made = client.chat.completions.create(
        model="tiny", messages=user(), temperature=1.0, seed=2, max_tokens=30, stop=stop
    )
    assert made.choices[0].message.content == text[: text.index(stop)]
    assert made.choices[0].finish_reason == "stop"
    best = runtime.generate(
        "image", Sampling(temperature=1.0, seed=2, candidates=4), text="a red seven"
    )
    made = client.chat.completions.create(
        model="tiny",
        messages=user({"type": "text", "text": "a red seven"}),
        modalities=["image"],
        temperature=1.0,
        seed=2,
        extra_body={"candidates": 4},
    )
    drawn = base64.b64decode(made.choices[0].message.parts[0]["image_url"]["url"].split(",")[1])
    assert drawn == best.adapter.write(best.grid, "/tmp/x.png").read_bytes()


def test_a_conversation_is_read_in_order(client, runtime, parts):
    """Answers that are sent back count as what was said."""
    first = client.chat.completions.create(
        model="tiny", messages=user(parts["text"]), modalities=["image", "text"], max_tokens=5
    )
    answer = first.choices[0].message.model_dump()
    messages = [
        {"role": "system", "content": "a blue three"},
        *user(parts["text"]),
        answer,
        {"role": "user", "content": "左上角"},
    ]
    made = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
    adapter = create_adapter("image", runtime.adapters["image"].settings())
    grid = adapter.read(write(answer["parts"][0]["image_url"]["url"]))
    condition = [
        ("text", "a blue three"),
        ("text", "a red seven"),
        ("image", grid),
        ("text", answer["content"]),
        ("text", "左上角"),
    ]
    condition = [(name, value) for name, value in condition if not isinstance(value, str) or value]
    from taichu.inference.generation import generate

    (expected,) = generate(runtime, "text", [condition], Sampling(pieces=8))
    assert made.choices[0].message.content == expected.text


def write(url: str):
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "answer.png"
    path.write_bytes(base64.b64decode(url.split(",")[1]))
    return path


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings(client, runtime, media, parts, tmp_path, modality):
    """By base64, which the client asks for itself, and as numbers; groups are one vector."""
    paths = paths_of(media, tmp_path)
    expected = np.stack(
        [
            runtime.embed(**{modality: paths[modality]}),
            runtime.embed(**{"image": paths["image"], modality: paths[modality]}),
        ]
    )
    group = [parts["image"], parts[modality]] if modality != "image" else [parts["image"]]
    for form in ({}, {"encoding_format": "float"}):
        made = client.embeddings.create(model="tiny", input=[parts[modality], group], **form)
        vectors = np.array([one.embedding for one in made.data])
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    if modality == "text":
        made = client.embeddings.create(model="tiny", input="a red seven")
        np.testing.assert_allclose(made.data[0].embedding, expected[0], atol=1e-6)


def test_models(client):
    (card,) = client.models.list()
    assert card.id == "tiny" and card.modalities == list(MODALITIES)
    assert client.models.retrieve("tiny") == card
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_events_are_whole_lines(served, post, parts):
    """As a reader without a client sees them."""
    answer = post(parts["text"], stream=True, max_tokens=3)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    bodies = [json.loads(line[6:]) for line in lines[:-1]]
    assert {body["object"] for body in bodies} == {"chat.completion.chunk"}
    assert len({body["id"] for body in bodies}) == 1


def test_what_cannot_be_written_is_said_and_the_rest_is_kept(post, runtime, monkeypatch):
    """A solid without a surface, as an untrained model makes them."""
    decode = runtime.decode_codes

    def nothing(modality, codes):
        return (
            np.ones_like(decode(modality, codes))
            if modality == "shape3d"
            else decode(modality, codes)
        )

    monkeypatch.setattr(runtime, "decode_codes", nothing)
    for stream in (False, True):
        answer = post({"type": "text", "text": "a"}, modalities=["shape3d", "image"], stream=stream)
        assert answer.ok
        if stream:
            bodies = [json.loads(x[6:]) for x in answer.text.split("\n") if x.startswith("data: {")]
            parts = [p for b in bodies for p in b["choices"][0]["delta"].get("parts", [])]
        else:
            parts = answer.json()["choices"][0]["message"]["parts"]
        assert parts[0]["shape3d_url"] is None and "no surface" in parts[0]["error"]["message"]
        assert parts[1]["image_url"]["url"].startswith("data:image/png")
    message = {"role": "assistant", "parts": parts}
    assert post(messages=[message]).ok


@pytest.fixture(params=[DEFAULT, MARKED], ids=["default", "marked"])
def chatting(runtime, serving, request):
    """A client of a server whose model was tuned on conversations."""
    runtime.template = ChatTemplate(request.param)
    try:
        with serving(runtime) as address:
            yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    finally:
        runtime.template = None


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_is_read_as_the_template_writes_it(
    chatting, runtime, media, parts, tmp_path, stream
):
    path = paths_of(media, tmp_path)["image"]
    seen = {"type": "image", "image": path}
    text = {"type": "text", "text": "a red seven?"}
    turns = [{"role": "system", "content": "left"}, {"role": "user", "content": [seen, text]}]
    turns += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "top?"}]
    sent = [*turns[:1], *user(parts["image"], text), *turns[2:]]
    expected = runtime.chat(turns, Sampling(temperature=1.0, seed=3, pieces=9))
    settings = {"max_tokens": 9, "temperature": 1.0, "seed": 3, "stream": stream}
    made = chatting.chat.completions.create(model="tiny", messages=sent, **settings)
    said = made if stream else [made]
    choices = [chunk.choices[0] for chunk in said]
    texts = [c.delta.content if stream else c.message.content for c in choices]
    assert "".join(text or "" for text in texts) == expected
    # media are made as before, from all parts in order
    expected = runtime.generate("audio", text="top?", image=path).save(tmp_path / "x.wav")
    asked = user({"type": "text", "text": "top?"}, parts["image"])
    made = chatting.chat.completions.create(model="tiny", messages=asked, modalities=["audio"])
    require_same(base64.b64decode(made.choices[0].message.audio.data), expected)


def test_what_the_template_refuses(runtime, serving):
    runtime.template = ChatTemplate(
        "{% if messages|length > 2 %}{{ raise_exception('too many') }}"
        "{% endif %}{% for m in messages %}{{ m.content }}|{% endfor %}"
    )
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}] * 3}
    try:
        with serving(runtime) as address:
            made = requests.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    finally:
        runtime.template = None
    assert made.status_code == 400
    error = made.json()["error"]
    assert error["message"] == "template: too many" and error["param"] == "messages"
