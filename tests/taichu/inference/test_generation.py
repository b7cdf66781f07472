"""Generation: greedy against a loop over single segments, the choice of tokens against NumPy."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from taichu import Taichu
from taichu.data.layout import GROUPED, Segment, Span, lay_out
from taichu.data.packing import pack_rows
from taichu.errors import GenerationError
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling, choose

GREEDY = Sampling(pieces=6)
DRAWN = Sampling(temperature=1.0, pieces=6)
MADE = ["text", "image", "audio", "video", "shape3d"]


@pytest.fixture(scope="module")
def conditions(contents) -> list[dict]:
    """Conditions of several lengths; the widest is the same whatever is made from them."""
    names = [("text",), ("audio", "shape3d"), (), ("video", "text", "image"), ("shape3d",)]
    return [{name: contents[name] for name in group} for group in names] + [{"text": "七"}]


def continue_alone(model, condition: dict, into: str, pieces: int) -> list[int]:
    """The most likely ids, one by one, each from a row that holds the segment so far alone."""
    vocabulary, observed = model.vocabulary, model.observe(condition)
    if into == "text":
        allowed, where, n = range(vocabulary.pieces + 1), None, pieces
    else:
        where = model.adapters[into].geometry.coordinates()
        allowed, n = vocabulary.codes(into), len(where)
    ids = []
    while len(ids) < n:
        coordinates = None if where is None else where[: len(ids)]
        span = Span(into, ids=np.array(ids, np.int32), coordinates=coordinates)
        tokens = lay_out(Segment(observed, (span,), GROUPED), vocabulary)
        last = len(tokens.ids) - 1  # the closing token is not written yet
        source, patches, first = np.zeros(last, np.int32), [], 1
        for index, name in enumerate(vocabulary.media):
            seen = [span.patches for span in observed if span.modality == name]
            here = (tokens.patch[:last] >= 0) & (tokens.modality[:last] == index)
            source[here] = first + tokens.patch[:last][here]
            patches.append(seen[0] if seen else np.zeros(model.grids[name], np.float32))
            first += len(patches[-1])
        planes = tokens.ids[:last], source, tokens.coords[:last], np.ones(last, np.int32)
        rows = [ms.Tensor(plane[None]) for plane in (*planes, tokens.span[:last])]
        hidden = model.backbone(*rows, *(ms.Tensor(p) for p in patches))
        logits = model.backbone.decode(hidden[last - 1 : last]).asnumpy()[0]
        chosen = allowed.start + int(np.argmax(logits[allowed.start : allowed.stop]))
        if into == "text" and chosen == vocabulary.close("text"):
            break
        ids.append(chosen)
    return ids


@pytest.mark.parametrize("into", MADE)
def test_greedy_equals_a_loop_over_single_segments(tiny, conditions, into):
    made = generate(tiny, into, conditions, GREEDY)
    for result, condition in zip(made, conditions[:4]):  # the loop takes its time
        assert result.ids == continue_alone(tiny, condition, into, GREEDY.pieces)


@pytest.mark.parametrize("into", ["text", "audio"])
def test_experts_make_the_same_step_by_step(tiny, tokenizer, conditions, into):
    ms.set_seed(11)
    model = Taichu(replace(tiny.config, experts=4), tokenizer)
    for layer in (block.feed_forward for block in model.backbone.blocks):
        drawn = np.random.default_rng(2).normal(0, 0.1, 4)
        layer.router.balance.set_data(ms.Tensor(drawn, ms.float32))
    for result, condition in zip(generate(model, into, conditions, GREEDY), conditions[:2]):
        assert result.ids == continue_alone(model, condition, into, GREEDY.pieces)


@pytest.mark.parametrize("into", MADE)
def test_every_id_is_of_the_modality_that_is_made(tiny, conditions, into):
    for result in generate(tiny, into, conditions, DRAWN):
        assert result.modality == into
        if into == "text":
            assert len(result.ids) <= DRAWN.pieces
            assert all(0 <= i < tiny.vocabulary.pieces for i in result.ids)
            assert result.text == tiny.vocabulary.decode(result.ids) and result.grid is None
        else:
            geometry = tiny.adapters[into].geometry
            assert len(result.ids) == geometry.tokens
            assert all(i in tiny.vocabulary.codes(into) for i in result.ids)
            assert result.grid.shape == geometry.shape and np.abs(result.grid).max() <= 1


@pytest.mark.parametrize("into", ["text", "image"])
def test_likelihoods_are_those_of_one_pass_over_the_whole(tiny, conditions, into):
    vocabulary, end = tiny.vocabulary, [tiny.vocabulary.close("text")]
    for made, condition in zip(generate(tiny, into, conditions, DRAWN), conditions[:3]):
        where = None if into == "text" else tiny.adapters[into].geometry.coordinates()
        stopped = into == "text" and len(made.ids) < DRAWN.pieces
        span = Span(into, ids=np.array(made.ids, np.int32), coordinates=where)
        segment = Segment(tiny.observe(condition), (span,), GROUPED)
        batch = pack_rows([segment], len(segment), vocabulary, tiny.grids)
        planes = batch.ids, batch.source, batch.coords, batch.segment, batch.span
        hidden = tiny.backbone(*map(ms.Tensor, (*planes, *batch.patches)))
        logits = tiny.backbone.decode(hidden).asnumpy().astype(np.float64)
        allowed = vocabulary.ranges[0] if into == "text" else vocabulary.codes(into)
        logits = logits[:, allowed.start : allowed.stop]
        first = len(segment) - len(made.ids) - 2  # the opening token
        said = made.ids + end * stopped
        likelihood = sum(
            logits[first + i][token - allowed.start] - np.log(np.exp(logits[first + i]).sum())
            for i, token in enumerate(said)
        )
        assert made.log_likelihood == pytest.approx(likelihood, abs=1e-3)


def test_seeds(tiny, conditions):
    one, again, other = (
        [made.ids for made in generate(tiny, "shape3d", conditions, replace(DRAWN, seed=seed))]
        for seed in (3, 3, 4)
    )
    assert one == again
    assert all(a != b for a, b in zip(one, other))


def test_a_batch_equals_one_by_one(tiny, conditions):
    texts = [conditions[0], conditions[-1], {"text": "a red seven at the top left, 左上角的红色七"}]
    lengths = [len(tiny.vocabulary.encode(condition["text"])) for condition in texts]
    assert len(set(lengths)) == 3
    together = [made.ids for made in generate(tiny, "shape3d", texts, GREEDY)]
    alone = [generate(tiny, "shape3d", [condition], GREEDY)[0].ids for condition in texts]
    assert together == alone
    drawn = generate(tiny, "shape3d", texts, DRAWN)[0].ids
    assert drawn == generate(tiny, "shape3d", texts[:1], DRAWN)[0].ids


def test_results_beyond_one_batch_are_the_same(tiny, conditions, monkeypatch):
    expected = [made.ids for made in generate(tiny, "image", conditions, DRAWN)]
    monkeypatch.setattr("taichu.inference.generation.ROWS", 4)
    assert [made.ids for made in generate(tiny, "image", conditions, DRAWN)] == expected


def script(model, monkeypatch, logits_of):
    """Let the model's next logits be ``logits_of(row, step)``; returns the ids it was shown."""
    shown = []

    def step(ids, coords, made, segment, *kept):
        assert int(made.asnumpy()[0]) == len(shown)
        shown.append(ids.asnumpy().copy())
        logits = np.stack([logits_of(row, len(shown) - 1) for row in range(len(shown[-1]))])
        return ms.Tensor(logits.astype(np.float32)), *kept[len(kept) // 2 :]

    compiled = model.compiled
    monkeypatch.setattr(
        model, "compiled", lambda name, f: step if name == "step" else compiled(name, f)
    )
    return shown


def test_text_ends_at_its_close(tiny, contents, monkeypatch):
    close, size = tiny.vocabulary.close("text"), tiny.vocabulary.size

    def logits_of(row, step):
        wanted = close if step == row else 260 + step
        likelier = np.zeros(size)
        likelier[[wanted, close + 1]] = 1, 2  # what follows the range is never taken
        return likelier

    shown = script(tiny, monkeypatch, logits_of)
    made = generate(tiny, "text", [{"text": "a"}, {"text": "b"}, {"text": "c"}], Sampling(pieces=2))
    assert [result.ids for result in made] == [[], [260], [260, 261]]
    assert [list(ids[:3]) for ids in shown] == [
        [tiny.vocabulary.open("text")] * 3,
        [tiny.vocabulary.open("text"), 260, 260],  # the first has ended
    ]


def test_it_stops_when_every_text_has_ended(tiny, monkeypatch):
    close, size = tiny.vocabulary.close("text"), tiny.vocabulary.size
    shown = script(tiny, monkeypatch, lambda row, step: np.eye(size)[close if step == 2 else 261])
    assert generate(tiny, "text", [{}, {}], Sampling(pieces=30))[1].ids == [261, 261]
    assert len(shown) == 3


def test_guidance_moves_the_logits_away_from_the_unconditioned(tiny, monkeypatch):
    codes = tiny.vocabulary.codes("video")
    with_condition, without = np.zeros((2, tiny.vocabulary.size))
    with_condition[codes.start : codes.start + 3] = 1.0, 0.9, 0.0
    without[codes.start : codes.start + 3] = 1.0, 0.5, 0.0
    monkeypatch.setattr(tiny, "decode_codes", lambda into, codes: codes)
    for scale, best in ((1.0, 0), (1.1, 0), (2.0, 1), (0.0, 0)):
        script(tiny, monkeypatch, lambda row, _: without if row > 0 else with_condition)
        sampling = Sampling(guidance=scale)
        ids = generate(tiny, "video", [{"text": "a"}], sampling)[0].ids
        assert ids == [codes.start + best] * tiny.adapters["video"].geometry.tokens


def test_guidance_of_one_equals_none(tiny, conditions):
    plain = generate(tiny, "shape3d", conditions[:1], DRAWN)[0].ids
    guided = generate(tiny, "shape3d", conditions[:1], replace(DRAWN, guidance=1 + 1e-7))[0].ids
    assert guided == plain


def reference(logits, temperature, top_k, top_p) -> np.ndarray:
    """Probability of each index, by loops."""
    p = np.exp(np.array(logits, np.float64) / temperature)
    p /= p.sum()
    kept, reached = np.zeros(len(p)), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: -p[i])):
        if (top_k and place >= top_k) or (place and reached >= top_p):
            break
        kept[index] = p[index]
        reached += p[index]
    return kept / kept.sum()


@pytest.mark.parametrize(
    "temperature, top_k, top_p",
    [
        (1, 0, 1),
        (0.5, 0, 1),
        (2, 0, 1),
        (1, 3, 1),
        (1, 0, 0.7),
        (0.7, 4, 0.8),
        (1, 1, 1),
        (1, 0, 0),
    ],
)
def test_choices_follow_their_probabilities(temperature, top_k, top_p):
    logits = np.array([0.3, 2.0, -1.0, 1.2, 0.9, -3.0, 1.5], np.float32)
    expected = reference(logits, temperature, top_k, top_p)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    random, n = np.random.default_rng(0), 4000
    chosen = choose(np.tile(logits, (n, 1)), [sampling] * n, random.random(n))
    drawn = np.bincount(chosen, minlength=7) / n
    assert (drawn[expected == 0] == 0).all()
    assert (np.abs(drawn - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()


def test_temperature_zero_takes_the_most_likely():
    logits = np.random.default_rng(0).standard_normal((20, 9))
    chosen = choose(logits, [Sampling(top_k=5)] * 20, np.full(20, 0.99))
    assert (chosen == np.argmax(logits, 1)).all()


def test_draws_at_both_ends_of_their_range():
    logits = np.log([[0.2, 0.5, 0.3]] * 3).astype(np.float32)
    draws = np.array([0.0, 0.6, np.nextafter(1, 0)])
    assert list(choose(logits, [Sampling(temperature=1.0)] * 3, draws)) == [1, 2, 0]
    assert list(choose(logits, [Sampling(temperature=1.0, top_k=2)] * 3, draws)) == [1, 1, 2]


def test_unknown_modalities_are_refused(tiny, contents):
    with pytest.raises(GenerationError) as caught:
        generate(tiny, "smell", [{}], GREEDY)
    known = "text, image, audio, video, shape3d"
    assert str(caught.value) == f"this model cannot make 'smell'; it makes {known}"
    with pytest.raises(GenerationError, match=f"no modality 'smell'; it has {known}"):
        tiny.generate("text", smell="rose.txt")


@pytest.mark.parametrize("into", ["text", "image"])
def test_the_best_candidate_is_kept(tiny, conditions, into):
    """The candidates are those that one condition, repeated, would get under their own numbers."""
    sampling = replace(DRAWN, candidates=3)
    kept = generate(tiny, into, conditions, sampling)
    for i, (condition, best) in enumerate(zip(conditions, kept)):
        draws = [np.random.default_rng((0, i, candidate)).random(64) for candidate in range(3)]
        made = [drawn_alone(tiny, into, condition, draw) for draw in draws]
        if condition:
            wanted = tiny.embed_many([condition])[0]
            vectors = tiny.embed_many([{into: candidate.content} for candidate in made])
            scale = float(np.exp(tiny.backbone.log_scale.asnumpy()[0]))
            score = scale * vectors @ wanted
            if into == "text":
                score = score + [candidate.log_likelihood for candidate in made]
            assert best.ids == made[int(np.argmax(score))].ids
        else:
            assert best.ids == made[0].ids


def drawn_alone(model, into: str, condition: dict, draws: np.ndarray):
    """One result of a condition, from these draws."""

    class Random:
        left = iter(draws)

        def random(self):
            return next(self.left)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "default_rng", lambda seed: Random())
        return generate(model, into, [condition], DRAWN)[0]


def test_candidates_that_would_be_equal_are_refused(tiny):
    with pytest.raises(GenerationError, match="candidates need a temperature above 0"):
        generate(tiny, "image", [{"text": "a"}], Sampling(candidates=2))
