"""Prefetching: the same batches in the same order, errors in their place, and an end."""

import threading
import time

import pytest

from taichu.data.prefetch import prefetch


def test_order():
    assert list(prefetch(lambda k: k * k, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert list(prefetch(lambda k: k, 5, 5)) == []


def test_no_more_than_asked_for_are_made_ahead():
    made = []
    batches = prefetch(lambda k: made.append(k) or k, 0, 100, ahead=2)
    assert next(batches) == 0
    time.sleep(0.2)
    assert made == [0, 1, 2, 3]  # handed over, two waiting, one in hand
    batches.close()


def test_an_error_comes_where_its_batch_is_asked_for():
    batches = prefetch(lambda k: 1 // (2 - k), 0, 9)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(batches)


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_ends_the_thread(taken):
    before = threading.active_count()
    batches = prefetch(lambda k: k, 0, 1000)
    for _ in range(taken):
        next(batches)
    batches.close()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
