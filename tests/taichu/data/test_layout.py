"""Every form of segment, token by token, against what was written down by hand."""

import numpy as np
import pytest

from taichu.data.layout import GROUPED, JOINT, NOT_DECODED, Segment, Span, lay_out

NONE = -1


@pytest.fixture
def spans(samples, vocabulary):
    """Text of pieces 7, 8, 9; and an image and a sound, observed and as codes."""
    image = np.array([0, 3, 5, 7]) + vocabulary.codes("image").start
    audio = np.array([4, 0, 2]) + vocabulary.codes("audio").start
    where = samples.coordinates
    return {
        "text": Span("text", ids=np.array([7, 8, 9])),
        "image": samples.patches("image"),
        "audio": samples.patches("audio"),
        "image codes": Span("image", ids=image, coordinates=where["image"]),
        "audio codes": Span("audio", ids=audio, coordinates=where["audio"]),
    }


def coordinates(*rows):
    """An int stands for (i, i, i)."""
    return [[row] * 3 if isinstance(row, int) else list(row) for row in rows]


def assert_tokens(tokens, **expected):
    for field, value in expected.items():
        np.testing.assert_array_equal(getattr(tokens, field), value, err_msg=field)
        assert getattr(tokens, field).dtype == np.int32


def test_observed_text(spans, vocabulary):
    segment = Segment((spans["text"],), embedding=3)
    open_text, close_text = vocabulary.open("text"), vocabulary.close("text")
    assert len(segment) == 5
    assert_tokens(
        lay_out(segment, vocabulary),
        ids=[open_text, 7, 8, 9, close_text],
        patch=[NONE] * 5,
        coords=coordinates(0, 1, 2, 3, 4),
        span=[0] * 5,  # causal
        pool=[0, 3, 3, 3, 0],  # the contents alone
        target=[NONE] * 5,
        range=[0] * 5,
    )


def test_an_empty_text_is_pooled_by_its_control_tokens(vocabulary):
    empty = Span("text", ids=np.array([], np.int32))
    assert_tokens(lay_out(Segment((empty,), embedding=2), vocabulary), pool=[2, 2])


def test_observed_image_then_sound_then_text(spans, vocabulary):
    segment = Segment((spans["image"], spans["audio"], spans["text"]), embedding=1)
    seen = {m: [vocabulary.patch(m)] for m in ("image", "audio")}
    ids = [vocabulary.open("image"), *seen["image"] * 4, vocabulary.close("image")]
    ids += [vocabulary.open("audio"), *seen["audio"] * 3, vocabulary.close("audio")]
    ids += [vocabulary.open("text"), 7, 8, 9, vocabulary.close("text")]
    image = [0, (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), 3]
    audio = [4, (5, 5, 5), (6, 5, 5), (7, 5, 5), 8]
    assert_tokens(
        lay_out(segment, vocabulary),
        ids=ids,
        patch=[NONE, 0, 1, 2, 3, NONE, NONE, 0, 1, 2, *[NONE] * 6],
        modality=[0] * 7 + [1] * 3 + [0] * 6,
        coords=coordinates(*image, *audio, 9, 10, 11, 12, 13),
        span=[0, 1, 1, 1, 1, 0, 0, 2, 2, 2, *[0] * 6],
        pool=[0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0],
        target=[NONE] * 16,
    )


def test_grouped_decoding_of_text(spans, vocabulary):
    segment = Segment((spans["audio"],), (spans["text"],), GROUPED, embedding=2)
    close = vocabulary.close("text")
    tokens = lay_out(segment, vocabulary)
    assert len(segment) == 10
    assert_tokens(
        tokens,
        coords=coordinates(0, (1, 1, 1), (2, 1, 1), (3, 1, 1), 4, 5, 6, 7, 8, 9),
        span=[0, 1, 1, 1, 0, *[0] * 5],
        pool=[0, 2, 2, 2, 0] + [0] * 5,  # what is decoded is never pooled
        # <text> predicts the first piece, the last piece predicts </text>
        target=[NONE] * 5 + [7, 8, 9, close, NONE],
        range=[0] * 5 + [1] * 4 + [0],
    )
    assert tokens.ids[-1] == close


def test_grouped_decoding_of_codes(spans, vocabulary):
    codes = spans["image codes"]
    segment = Segment((spans["text"],), (codes,), GROUPED)
    assert_tokens(
        lay_out(segment, vocabulary),
        ids=[vocabulary.open("text"), 7, 8, 9, vocabulary.close("text")]
        + [vocabulary.open("image"), *codes.ids, vocabulary.close("image")],
        coords=coordinates(0, 1, 2, 3, 4, 5, (6, 6, 6), (6, 6, 7), (6, 7, 6), (6, 7, 7), 8),
        patch=[NONE] * 11,
        span=[0] * 11,
        pool=[0] * 11,
        # the number of codes is known: the closing token is not learned
        target=[NONE] * 5 + [*codes.ids, NONE, NONE],
        range=[0] * 5 + [2] * 4 + [0, 0],
    )


def test_joint_decoding(spans, vocabulary):
    codes = spans["audio codes"]
    segment = Segment((spans["image"],), (codes, spans["text"]), JOINT, embedding=5)
    open_audio, close_audio = vocabulary.open("audio"), vocabulary.close("audio")
    open_text, close_text = vocabulary.open("text"), vocabulary.close("text")
    decoded = [open_audio, *codes.ids, close_audio, open_text, 7, 8, 9, close_text, vocabulary.end]
    assert len(segment) == 6 + 5 + 5 + 1
    tokens = lay_out(segment, vocabulary)
    assert_tokens(
        tokens,
        pool=[0, *[5] * 4, 0] + [0] * 11,
        # everything after the condition is learned, from its last token on, and the end too
        target=[NONE] * 5 + decoded + [NONE],
        range=[0] * 17,  # the whole vocabulary
        coords=coordinates(
            *[0, (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), 3],
            *[4, (5, 5, 5), (6, 5, 5), (7, 5, 5), 8],
            *[9, 10, 11, 12, 13, 14],
        ),
    )
    assert list(tokens.ids[6:]) == decoded


@pytest.mark.parametrize("decoding", [GROUPED, JOINT])
def test_dropped_condition(spans, vocabulary, decoding):
    segment = Segment((), (spans["text"],), decoding, embedding=4)
    close, joint = vocabulary.close("text"), decoding == JOINT
    end = [vocabulary.end] * joint
    assert_tokens(
        lay_out(segment, vocabulary),
        ids=[vocabulary.null, vocabulary.open("text"), 7, 8, 9, close, *end],
        coords=coordinates(*range(6 + joint)),
        pool=[0] * (6 + joint),
        target=[vocabulary.open("text") if joint else NONE, 7, 8, 9, close, *(end or [NONE])]
        + [NONE] * joint,
        range=[0] + [0 if joint else 1] * 4 + [0] * (1 + joint),
    )


def test_the_length_is_known_before_the_layout(samples, vocabulary):
    for decoding in (NOT_DECODED, GROUPED, JOINT):
        for observed in (
            (),
            (samples.patches("image"),),
            (samples.text(), samples.patches("audio")),
        ):
            decoded = (samples.codes("audio"), samples.text()) if decoding == JOINT else ()
            decoded = (samples.text(),) if decoding == GROUPED else decoded
            segment = Segment(observed, decoded, decoding)
            assert len(lay_out(segment, vocabulary).ids) == len(segment)
