"""Batches made ahead of the step that needs them, by a thread."""

import queue
import threading
from collections.abc import Callable, Iterator


def prefetch(make: Callable, start: int, stop: int, ahead: int = 4) -> Iterator:
    """Yield make(start), .., make(stop - 1), with up to ``ahead`` of them ready.

    An error in ``make`` is raised where its batch is asked for. Closing the iterator ends the
    thread.
    """
    ready: queue.Queue = queue.Queue(ahead)
    stopped = threading.Event()

    def hand_over(item):
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce():
        for k in range(start, stop):
            if stopped.is_set():
                return
            try:
                hand_over(make(k))
            except Exception as error:
                return hand_over(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
