"""Conversations in tokens: the published sequence, the answers exactly, and nothing of others."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

from taichu.data.conversations.overlong import truncate
from taichu.data.conversations.template import DEFAULT, ChatTemplate, Rendered
from taichu.data.conversations.tokens import Medium, open_answer, to_segment, to_spans
from taichu.data.layout import Segment, lay_out
from taichu.data.packing import BatchShape, pack_into_rows, pack_rows
from taichu.training.objectives import Objective
from tests.taichu.data.conversations.conftest import (
    CHATML,
    PUBLISHED,
    SPECIAL,
    PublishedVocabulary,
    talk,
)

TALKS = [
    talk("What do you see?", "A red seven."),
    talk("  What?\n", " seven. ", "你好", "七 seven", "Why?", "Because:\n\nb"),
]


def lay_out_talk(turns, template, vocabulary, media=()):
    spans = to_spans(template.render(turns), template, vocabulary)
    media = [replace(span, given=True) for span in media]
    return to_segment([media[s.number] if isinstance(s, Medium) else s for s in spans])


@pytest.mark.parametrize("turns", TALKS)
def test_tokens_and_answers_are_those_of_transformers(published, turns):
    transformers = pytest.importorskip("transformers")
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=published.tokenizer)
    theirs = peer.apply_chat_template(
        [{"role": t.role, "content": t.parts[0][1]} for t in turns],
        chat_template=CHATML,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    tokens = lay_out(lay_out_talk(turns, ChatTemplate(CHATML), published), published)
    np.testing.assert_array_equal(tokens.ids, theirs["input_ids"])
    np.testing.assert_array_equal(tokens.coords, np.arange(len(tokens.ids))[:, None] * [1, 1, 1])
    learned = np.append(False, tokens.target[:-1] >= 0)
    np.testing.assert_array_equal(learned, np.array(theirs["assistant_masks"], bool))
    assert (tokens.target[:-1][learned[1:]] == tokens.ids[1:][learned[1:]]).all()
    bare = 2 + len(published.media)
    assert (tokens.range == bare * np.append(learned[1:], False)).all()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("turns", TALKS)
def test_what_is_learned_reads_as_the_answers(published, name, turns):
    """Without the tag, and of answers that a token joins to what is before or behind them."""
    template = ChatTemplate(PUBLISHED[name], SPECIAL)
    rendered = template.render(turns)
    segment = lay_out_talk(turns, template, published)
    assert len(lay_out(segment, published).ids) == len(segment)
    ids = np.concatenate([span.ids for span in segment.spans])
    np.testing.assert_array_equal(ids, published.encode(rendered.text))
    learned = [span.ids for span in segment.decoded if not span.given]
    spoken = [published.tokenizer.decode(ids, skip_special_tokens=False) for ids in learned]
    assert spoken == [rendered.text[a:b] for a, b, _ in rendered.answers]


def test_a_token_over_an_answer_s_beginning_is_the_answer_s(published):
    """' seven' is one token, and its space is the prompt's."""
    text = "red seven</s>"
    rendered = Rendered(text, ((4, len(text), True),))
    spans = to_spans(rendered, ChatTemplate(PUBLISHED["mistral"], SPECIAL), published)
    ids = published.encode(text)
    assert [list(span.ids) for span in spans] == [ids[:-2], ids[-2:]]
    assert published.decode(ids[-2:-1]) == " seven"


def test_tokens_before_an_answer_that_it_cuts_up_otherwise(published):
    """As GPT-2 cuts texts, two line ends are one token alone, and two before a word."""
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.Tokenizer.from_str(published.tokenizer.to_str())
    other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    published = PublishedVocabulary(other, {})
    text = "\n\nred</s>"
    alone, ids = published.encode("\n\n"), published.encode(text)
    assert len(alone) == 1 and ids[:2] == published.encode("\n") * 2
    rendered = Rendered(text, ((2, len(text), True),))
    spans = to_spans(rendered, ChatTemplate(PUBLISHED["mistral"], SPECIAL), published)
    assert [list(span.ids) for span in spans] == [ids[:2], ids[2:]]


def test_media_stand_open_and_closed_between_the_tokens(published, samples):
    image, sound = samples.patches("image"), samples.patches("audio")
    turns = talk((("text", "Look:"), ("image", 0), ("audio", 1), ("text", "what?")), "A seven")
    segment = lay_out_talk(turns, ChatTemplate(CHATML), published, (image, sound))
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nLook:"
    before = published.encode(text)
    behind = published.encode("what?<|im_end|>\n<|im_start|>assistant\nA seven<|im_end|>\n")
    tokens, n = lay_out(segment, published), len(before)
    patch = published.patch
    expected = [*before, published.open("image"), *[patch("image")] * 4, published.close("image")]
    expected += [published.open("audio"), *[patch("audio")] * 3, published.close("audio"), *behind]
    np.testing.assert_array_equal(tokens.ids, expected)
    inside = np.flatnonzero(tokens.span)
    assert list(inside - n) == [1, 2, 3, 4, 7, 8, 9]
    assert (tokens.coords[n + 1 : n + 5] == n + 1 + samples.coordinates["image"]).all()
    # the image takes 1 + 2 + 1 coordinates, the sound 1 + 3 + 1
    assert (tokens.coords[n + 11 :, 0] == n + 9 + np.arange(len(behind))).all()
    learned = np.flatnonzero(tokens.target >= 0) + 1
    assert published.decode(tokens.ids[learned]) == "A seven"
    assert tokens.ids[learned[-1]] == published.encode("<|im_end|>")[0]


def test_two_images_keep_their_own_patches(vocabulary, samples):
    images = samples.patches("image"), samples.patches("image")
    sound = samples.patches("audio")
    segment = Segment((images[0], sound, images[1]))
    batch = pack_rows([segment, segment], 32, vocabulary, {"image": (4, 6), "audio": (3, 4)})
    stacked = np.zeros((sum(map(len, batch.patches)), 6), np.float32)
    place = 0
    for patches in batch.patches:
        stacked[place : place + len(patches), : patches.shape[1]] = patches
        place += len(patches)
    for row in batch.source:
        seen = stacked[row[row > 0] - 1]
        np.testing.assert_array_equal(seen[:4], images[0].patches)
        np.testing.assert_array_equal(seen[4:7, :4], sound.patches)
        np.testing.assert_array_equal(seen[7:], images[1].patches)


def test_a_model_of_our_own_learns_spans(vocabulary, samples):
    image = samples.patches("image")
    turns = talk((("image", 0), ("text", "seven?")), "yes", "sure?", "a red")
    segment = lay_out_talk(turns, ChatTemplate(DEFAULT), vocabulary, (image,))
    tokens, encode = lay_out(segment, vocabulary), vocabulary.encode
    opened, closed = vocabulary.open("text"), vocabulary.close("text")

    def text(said):
        return [opened, *encode(said), closed]

    expected = text("user: ")
    expected += [vocabulary.open("image"), *[vocabulary.patch("image")] * 4]
    expected += [vocabulary.close("image"), *text("seven?\n"), *text("yes"), *text("user: sure?\n")]
    expected += text("a red")
    np.testing.assert_array_equal(tokens.ids, expected)
    learned = [*encode("yes"), closed, *encode("a red"), closed]
    assert list(tokens.target[tokens.target >= 0]) == learned
    assert list(tokens.ids[np.flatnonzero(tokens.target >= 0) + 1]) == learned


@pytest.mark.parametrize("source", [DEFAULT, CHATML, *PUBLISHED.values()])
def test_an_answer_is_opened_as_training_lays_it_out(published, samples, source):
    template = ChatTemplate(source, SPECIAL)
    media = samples.patches("image"), samples.patches("image")
    turns = talk((("image", 0), ("text", "What?")), "A", (("image", 0), ("text", "And?")), "B")
    tokens = lay_out(lay_out_talk(turns, template, published, media), published)
    opening = open_answer(template.open(turns[:3]), list(media), template, published)
    begun = lay_out(Segment(opening.spans), published)
    n = len(begun.ids)
    token = published.open("text") if opening.token is None else opening.token
    np.testing.assert_array_equal(tokens.ids[: n + 1], [*begun.ids, token])
    np.testing.assert_array_equal(tokens.coords[:n], begun.coords)
    assert (tokens.coords[n] == begun.coords[-1].max() + 1).all()
    np.testing.assert_array_equal(tokens.span[:n] > 0, begun.span > 0)
    # from here on all is learned, up to what ends the answer
    last = n + int(np.argmin(np.append(tokens.target[n:] >= 0, False)))
    end = opening.end or (published.close("text"),)
    assert tuple(tokens.ids[last + 1 - len(end) : last + 1]) == end
    assert last - n > len(end)


def test_overlong(published, vocabulary, samples):
    image = replace(samples.patches("image"), given=True)
    turns = talk((("image", 0), ("text", "What?")), "A", "And?", "BBB")

    def cut(most, template, ids):
        spans = to_spans(template.render(turns), template, ids)
        spans = [image if isinstance(s, Medium) else s for s in spans]
        kept = truncate(spans, most, ids)
        if kept is None:
            return None
        segment = to_segment(kept)
        assert len(segment) <= most and any(not s.given for s in segment.decoded)
        tokens = lay_out(segment, ids)
        return tokens, lay_out(to_segment(spans), ids)

    for template, ids in (
        (ChatTemplate(CHATML), published),
        (ChatTemplate(DEFAULT), vocabulary),
    ):
        whole = cut(10_000, template, ids)[1]
        learned = np.flatnonzero(whole.target >= 0) + 1
        gap = int(np.argmax(np.diff(learned) > 1))
        first, end = learned[0], learned[gap]  # of the first answer
        for most in range(1, len(whole.ids) + 1):
            made = cut(most, template, ids)
            if most <= first:
                assert made is None
                continue
            tokens, n = made[0], len(made[0].ids)
            np.testing.assert_array_equal(tokens.ids, whole.ids[:n])
            np.testing.assert_array_equal(tokens.target[:-1], whole.target[: n - 1])
            # an answer's end where there is room for one, else as much as there is room for
            last = learned[-1] if most > learned[-1] else end if most > end else most - 1
            assert n == last + 1


def test_no_conversation_sees_another(tiny, seeded):
    """Two conversations in a row; one is changed, and the other's logits and loss stay."""
    vocabulary, adapter = tiny.vocabulary, tiny.adapters["image"]
    template, where = ChatTemplate(DEFAULT), adapter.geometry.coordinates()
    shape = BatchShape(1, 160, 64, 1, tuple((n, 8 * t, p) for n, (t, p) in tiny.grids.items()))

    def segment(*texts):
        grid = seeded.uniform(-1, 1, adapter.geometry.shape)
        span = tiny.observe({"image": grid})[0]
        turns = talk((("image", 0), ("text", texts[0])), *texts[1:])
        assert (span.coordinates == where).all()
        return lay_out_talk(turns, template, vocabulary, (span,))

    first, second = segment("red", "a", "left", "b"), segment("seven", "three", "blue", "top")
    other = segment("right", "x", "moves", "c")
    assert len(other) != len(second)
    objective = Objective(tiny.backbone, vocabulary, alignment_weight=0)

    def run(*segments):
        batch = pack_into_rows([list(segments)], shape, vocabulary)
        hidden = tiny.backbone(*map(ms.Tensor, (*batch.planes, *batch.patches)))
        n = len(first)
        used = (batch.weights > 0) & (batch.positions < n)
        logits = tiny.backbone.decode(hidden[: shape.length]).asnumpy()
        batch.weights[:] = used / used.sum()
        loss = objective(*map(ms.Tensor, batch.arrays()))[0]
        return logits[:n], float(loss), used.sum()

    logits, loss, count = run(first, second)
    assert count == sum(len(s) + 1 for s in first.decoded if not s.given)
    for alone in (run(first, other), run(first)):
        np.testing.assert_allclose(alone[0], logits, atol=1e-6)
        assert alone[1] == pytest.approx(loss, abs=1e-6) and alone[2] == count
    changed = run(segment("red", "a", "left", "b"), second)  # another image: it does see its own
    assert np.abs(changed[0] - logits).max() > 1e-4
