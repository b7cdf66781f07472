"""What becomes of a conversation that is longer than a row."""

from dataclasses import replace

import numpy as np

from taichu.data.layout import Span
from taichu.vocabulary import TEXT, Vocabulary


def truncate(spans: list, most: int, vocabulary: Vocabulary) -> list | None:
    """The beginning of a conversation, of at most so many tokens.

    It ends with the last answer that is whole. Where not even the first is, that one is cut, and
    nothing is learned of how it ends. Media are never cut.

    Args:
        spans: of the conversation; of media ``given`` and ``places`` are enough.
        most: tokens.
        vocabulary: for the token that opens a text.

    Returns:
        None where there is no room for a token of an answer.
    """
    if spans and not spans[0].given:
        most -= 1  # <null> stands before it
    taken, whole = 0, 0
    for number, span in enumerate(spans, start=1):
        taken += span.places
        if taken > most:
            break
        if not span.given:
            whole = number
    if whole:
        return spans[:whole]
    first = next(i for i, span in enumerate(spans) if not span.given)
    before, answer = spans[:first], spans[first]
    room = most - sum(span.places for span in before)
    if not answer.bare:
        # its </text> would say that it ends here
        opening = np.array([vocabulary.open(TEXT)], np.int32)
        before, room = [*before, Span(TEXT, ids=opening, given=True, bare=True)], room - 1
    if room < 1:
        return None
    return [*before, replace(answer, ids=answer.ids[:room], bare=True)]
