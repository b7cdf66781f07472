"""Rows that come and go make what they would make alone."""

import numpy as np
import pytest

from taichu.errors import GenerationError
from taichu.inference.generation import begin_answers, finish, generate
from taichu.inference.sampling import Sampling
from taichu.runtime.continuous_batching import ContinuousBatching, Prompt

GREEDY = Sampling(pieces=6)
DRAWN = Sampling(temperature=1.0, seed=3, pieces=9, candidates=2)
GUIDED = Sampling(temperature=0.8, seed=5, guidance=2.0, top_p=0.9)


def prompt_of(model, content, into, sampling) -> Prompt:
    spans = model.observe(content)
    return Prompt(spans, begin_answers(model, into, spans, sampling))


def ids_of(model, content, into, sampling):
    (row,) = generate(model, into, [content], sampling)
    return [(one.modality, one.ids) for one in row]


def test_what_joins_and_leaves_makes_what_it_makes_alone(runtime, contents):
    """Eight requests of all modalities, a new one every third step, in six rows."""
    image, video = {"image": contents["image"]}, {"video": contents["video"]}
    asked = [
        (image, ("text",), GREEDY),
        ({"text": "a red seven at the top left"}, ("audio", "text"), GREEDY),
        (video, ("shape3d",), GUIDED),
        ({}, ("text",), DRAWN),
        ({"shape3d": contents["shape3d"], "text": "a"}, ("text",), DRAWN),
        ({"audio": contents["audio"]}, ("image",), GUIDED),
        (image, ("video", "image"), GREEDY),
        ({}, ("image",), GUIDED),
    ]
    batching, steps, done = ContinuousBatching(runtime, rows=6, room=128), 0, []
    waiting = [prompt_of(runtime, *request) for request in asked]
    prompts, together = list(waiting), 0
    while waiting or batching.rows:
        if waiting and steps % 3 == 0 and waiting[0].rows <= batching.free:
            batching.join([waiting.pop(0)])
        if batching.rows:
            batching.step()
        together = max(together, len(batching.rows))
        done += [p for p in prompts if p not in done and all(a.done for a in p.answers)]
        steps += 1
    assert together >= 4 and batching.free == 6
    assert done != prompts  # a short one that came later was done before a long one
    for (content, into, sampling), prompt in zip(asked, prompts):
        (row,) = finish(runtime, [content], prompt.answers)
        expected = ids_of(runtime, content, into, sampling)
        assert [(one.modality, one.ids) for one in row] == expected


def test_what_is_given_up_leaves_the_others_alone(runtime, contents):
    batching = ContinuousBatching(runtime, rows=5, room=64)
    given_up = prompt_of(runtime, {"text": "a blue three"}, ("image",), GUIDED)
    kept = prompt_of(runtime, {"image": contents["image"]}, ("text", "audio"), GREEDY)
    guided = prompt_of(runtime, {"text": "a"}, ("image",), GUIDED)
    batching.join([given_up, kept, guided])
    for _ in range(3):
        batching.step()
    batching.leave(given_up.answers)
    assert batching.free == 2
    while batching.rows:
        batching.step()
    assert [a.spans for a in kept.answers] == [
        ids_of(runtime, {"image": contents["image"]}, ("text", "audio"), GREEDY)
    ]
    assert [a.spans for a in guided.answers] == [ids_of(runtime, {"text": "a"}, ("image",), GUIDED)]


def test_prompts_of_different_lengths_join_together(runtime, contents):
    asked = [{"text": "a"}, {"video": contents["video"], "text": "a red seven"}, {}]
    prompts = [prompt_of(runtime, content, ("text",), GREEDY) for content in asked]
    batching = ContinuousBatching(runtime, rows=3, room=64)
    batching.join(prompts)
    while batching.rows:
        batching.step()
    for content, prompt in zip(asked, prompts):
        assert prompt.answers[0].spans == ids_of(runtime, content, ("text",), GREEDY)


def test_several_of_one_modality_are_read_in_order(runtime, contents):
    one, other = contents["image"], contents["image"][:, ::-1]
    pairs = [("image", one), ("text", "a"), ("image", other)]
    vectors = runtime.embed_many([pairs, pairs[::-1], {"image": one, "text": "a"}])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    np.testing.assert_allclose(
        runtime.embed_many([list({"image": one, "text": "a"}.items())])[0], vectors[2], atol=1e-6
    )


def test_what_never_fits_is_refused(runtime):
    batching = ContinuousBatching(runtime, rows=3, room=32)
    with pytest.raises(GenerationError, match="4 rows .* more than the 3 there are"):
        batching.check(
            prompt_of(
                runtime, {"text": "a"}, ("text",), Sampling(guidance=2, candidates=2, temperature=1)
            )
        )
    with pytest.raises(GenerationError, match="tokens given and 40 to be made are more than the 3"):
        batching.check(prompt_of(runtime, {"text": "a"}, ("text",), Sampling(pieces=40)))
