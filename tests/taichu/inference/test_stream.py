"""A streamed text is the generated one, in pieces that never change what was said."""

import numpy as np
import pytest

from taichu.errors import GenerationError
from taichu.inference.generation import Decoding, generate, settled, stream
from taichu.inference.sampling import Sampling


@pytest.mark.parametrize("stop", [(), ("e",), ("zz", "a b")])
def test_pieces_make_up_the_text(tiny, contents, stop):
    for seed in range(4):
        sampling = Sampling(temperature=1.5, seed=seed, pieces=20, stop=stop)
        (made,) = generate(tiny, "text", [{"image": contents["image"]}], sampling)
        pieces = list(stream(tiny, {"image": contents["image"]}, sampling))
        assert "".join(pieces) == made.text and "" not in pieces
        assert not any(end in made.text for end in stop)


def test_pieces_come_as_they_are_made(tiny, monkeypatch):
    """A Chinese character of three bytes comes when it is whole."""
    ids = tiny.vocabulary.encode("a 𠮷 seven")
    said = [tiny.vocabulary.decode(ids[: n + 1]) for n in range(len(ids))]
    assert any(text.endswith("\ufffd") for text in said)
    logits = iter([*ids, tiny.vocabulary.close("text")])

    def next_logits(tokens, coords, made):
        return np.eye(tiny.vocabulary.size)[[next(logits)]]

    monkeypatch.setattr(type(tiny), "start_reading", lambda *_: next_logits)
    pieces = list(stream(tiny, {}, Sampling(pieces=40)))
    assert "".join(pieces) == "a 𠮷 seven" and len(pieces) > 2
    assert not any("\ufffd" in piece for piece in pieces)


def test_what_may_become_a_stop_string_is_held_back():
    assert settled("the end", ("ending",)) == "the "
    assert settled("the end", ("dx", "nd.")) == "the e"
    assert settled("the end", ()) == "the end"
    assert settled("the e\ufffd\ufffd", ()) == "the e"


def test_rows_are_done_when_all_are(tiny):
    decoding = Decoding(tiny, ("image",), [{}, {"text": "a"}], Sampling())
    for _ in range(tiny.adapters["image"].geometry.tokens):
        assert not decoding.done
        decoding.step()
    assert decoding.done


def test_a_seed_can_be_given_beside_the_inputs(tiny):
    drawn = Sampling(temperature=1.5, seed=4, pieces=20)
    pieces = tiny.stream(Sampling(temperature=1.5, pieces=20), text="a", seed=4)
    assert "".join(pieces) == tiny.generate("text", drawn, text="a").text


def test_lists_and_candidates_are_refused(tiny):
    with pytest.raises(GenerationError, match="a stream is of single inputs"):
        tiny.stream(text=["a", "b"])
    with pytest.raises(GenerationError, match="and of one candidate"):
        tiny.stream(Sampling(temperature=1.0, candidates=2), text="a")
