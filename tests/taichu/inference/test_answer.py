"""What a row feeds stands as layouts write it, and what is chosen keeps to each span's range."""

import numpy as np
import pytest

from taichu.data.layout import JOINT, Segment, Span, lay_out
from taichu.inference.answer import Answer, choose_next
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling, choose, penalise

SAMPLING = Sampling(pieces=4)


def answer_of(model, into, sampling=SAMPLING, start=7):
    draws = np.random.default_rng(0)
    return Answer(model.vocabulary, model.adapters, into, sampling, draws, start)


@pytest.mark.parametrize(
    "into", [("text", "image"), ("audio", "text"), ("shape3d", "video"), ("text", "audio", "image")]
)
@pytest.mark.parametrize("ended", [True, False])
def test_tokens_stand_as_in_a_layout(tiny, into, ended):
    """Texts that the model ends, and such as are cut off when they are long enough."""
    random, vocabulary = np.random.default_rng(3), tiny.vocabulary
    answer, fed, spans = answer_of(tiny, into), [], []
    most = answer.most_tokens
    for _ in range(most):
        fed.append(answer.feed())
        if answer.free is None:
            continue
        if answer.modality == "text":
            token = int(random.integers(0, vocabulary.pieces))
            if ended and len(answer.ids) == 2:
                token = vocabulary.close("text")
        else:
            token = int(random.integers(answer.free.start, answer.free.stop))
        answer.take(token, -1.0)
    assert answer.done and [modality for modality, _ in answer.spans] == list(into)
    assert answer.feed() == fed[-1]  # a row that is done feeds its last token again
    for modality, ids in answer.spans:
        where = None if modality == "text" else tiny.adapters[modality].geometry.coordinates()
        spans.append(Span(modality, ids=np.array(ids, np.int32), coordinates=where))
    text = Span("text", ids=np.arange(4, dtype=np.int32))
    tokens = lay_out(Segment((text,), tuple(spans), JOINT), vocabulary)
    first = len(text) + 2
    count = sum(len(span) + 2 for span in spans) - 2  # the last token made is not fed
    unique = fed[:count]
    assert [token for token, _ in unique] == tokens.ids[first : first + count].tolist()
    start = tokens.coords[first, 0] - 7
    np.testing.assert_array_equal(
        np.array([place for _, place in unique]) + start, tokens.coords[first : first + count]
    )


def test_a_stop_string_ends_a_text_and_is_cut_off(tiny):
    pieces = tiny.vocabulary.encode("a red seven at the top")
    answer = answer_of(tiny, ("text",), Sampling(pieces=32, stop=("seven", "n at")))
    for piece in pieces:
        answer.feed()
        if answer.done:
            break
        answer.take(piece, 0.0)
    assert answer.done and "seven" in tiny.vocabulary.decode(answer.spans[0][1])
    assert answer.cut("a red seven at the top") == "a red "


def test_rows_of_different_ranges_are_chosen_each_in_its_own(tiny):
    answers = [answer_of(tiny, (name,)) for name in ("image", "audio", "text")]
    logits = np.random.default_rng(1).normal(size=(3, tiny.vocabulary.size))
    free = []
    for answer in answers:
        answer.feed()
        free.append(answer.free)
    choose_next(answers, logits)
    for answer, allowed, row in zip(answers, free, logits):
        own = row[allowed.start : allowed.stop]
        assert answer.ids == [allowed.start + int(own.argmax())]
        assert answer.log_likelihood == pytest.approx(own.max() - np.log(np.exp(own).sum()))


def test_several_modalities_come_back_in_order(tiny, contents):
    given = [{"audio": contents["audio"]}, {}]
    sampling = Sampling(temperature=1.0, pieces=4)
    made = generate(tiny, ("text", "shape3d", "image"), given, sampling)
    for row in made:
        assert [one.modality for one in row] == ["text", "shape3d", "image"]
        assert isinstance(row[0].text, str) and len(row[0].ids) <= 4
        for one in row[1:]:
            geometry = tiny.adapters[one.modality].geometry
            assert one.grid.shape == geometry.shape and len(one.ids) == geometry.tokens
    alone = generate(tiny, "text", given, sampling)
    assert [row[0].ids for row in made] == [one.ids for one in alone]


def test_min_p_leaves_what_is_likely_enough():
    """Against the definition: p >= min_p * max p."""
    random = np.random.default_rng(2)
    logits = random.normal(0, 2, 40)
    p = np.exp(logits) / np.exp(logits).sum()
    kept = set(np.flatnonzero(p >= 0.2 * p.max()))
    rows = np.tile(logits, (4000, 1))
    sampling = [Sampling(temperature=1.0, min_p=0.2)] * 4000
    chosen = choose(rows, sampling, random.random(4000))
    assert set(chosen) == kept and 1 < len(kept) < 40


def test_a_repetition_penalty_is_on_what_is_there():
    logits = np.array([[2.0, -1.0, 0.5], [2.0, -1.0, 0.5]])
    samplings = [Sampling(repetition_penalty=2.0), Sampling()]
    made = penalise(logits, [[0, 1, 0], [0, 1]], samplings)
    np.testing.assert_array_equal(made, [[1.0, -2.0, 0.5], [2.0, -1.0, 0.5]])
    np.testing.assert_array_equal(logits[0], [2.0, -1.0, 0.5])


def test_each_row_is_chosen_by_its_own_sampling():
    logits = np.array([[0.0, 1.0, 3.0]] * 3)
    samplings = [Sampling(), Sampling(temperature=1.0, top_k=1), Sampling(temperature=5.0)]
    assert list(choose(logits, samplings, np.array([0.0, 0.99, 0.999]))) == [2, 2, 0]
