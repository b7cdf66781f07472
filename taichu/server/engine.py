"""The engine: one thread that decodes whatever has been asked for, together."""

import asyncio
import threading
import time
from collections import deque

from taichu.errors import GenerationError
from taichu.inference.answer import Answer
from taichu.runtime import Runtime
from taichu.runtime.continuous_batching import ContinuousBatching, Prompt
from taichu.server.errors import RequestError, overloaded, too_late
from taichu.server.limits import Limits
from taichu.server.metrics import Metrics
from taichu.vocabulary import TEXT

READ_TOGETHER = 4096  # tokens of conditions at a time: attention's scores must fit into memory


class Job:
    """A prompt on its way through the engine.

    Args:
        prompt: what is to be made.
        seconds: it may take.
        followed: whether its progress is told, and not its end alone.

    Attributes:
        began: when it came, by `time.monotonic`. started: whether it has made a token.
        cancelled: whether nobody waits for it any more.
    """

    def __init__(self, prompt: Prompt, seconds: float, followed: bool):
        self.prompt, self.seconds, self.followed = prompt, seconds, followed
        self.began, self.started, self.cancelled = time.monotonic(), False, False
        self.told = [(0, 0)] * len(prompt.answers)  # how much of each answer
        self.loop, self.inbox = asyncio.get_running_loop(), asyncio.Queue()

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.began + self.seconds

    async def news(self):
        """What comes next; None when all is made.

        Raises:
            RequestError: it cannot be made.
        """
        news = await self.inbox.get()
        if isinstance(news, Exception):
            raise news
        return news

    async def done(self):
        """Wait until all is made.

        Raises:
            RequestError: it cannot be made.
        """
        while await self.news() is not None:
            pass


class Progress:
    """What an answer has come to: its whole spans, and the ids of a text that is being made."""

    def __init__(self, number: int, answer: Answer):
        self.number, self.answer, self.spans = number, answer, list(answer.spans)
        making_text = not answer.done and answer.modality == TEXT
        self.ids = list(answer.ids) if making_text else []

    @property
    def extent(self) -> tuple[int, int]:
        """Grows whenever there is something to tell."""
        return len(self.spans), len(self.ids)


def tell(news: list[tuple]):
    """From the engine's thread to those who wait: (job, what), all at once, since waking the other
    thread is what costs; what: a list of `Progress`, an error, or None when all is made."""

    def deliver():
        for job, what in news:
            job.inbox.put_nowait(what)

    if news:
        news[0][0].loop.call_soon_threadsafe(deliver)


class Engine:
    """Decodes jobs in the order in which they came, as many together as there are rows for.

    Args:
        model: an exported model.
        limits: of rows, their length and the queue.
        metrics: are kept up to date.
    """

    def __init__(self, model: Runtime, limits: Limits, metrics: Metrics):
        self.model, self.limits, self.metrics = model, limits, metrics
        self.batching = ContinuousBatching(model, limits.rows, limits.room)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.changed, self.closing = threading.Condition(), False
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.thread.start()

    def submit(self, job: Job):
        """Queue a job; its news come from now on.

        Raises:
            RequestError: it never fits, or too many are waiting.
        """
        try:
            self.batching.check(job.prompt)
        except GenerationError as error:
            raise RequestError(str(error), code="context_length_exceeded") from None
        with self.changed:
            waiting = sum(not job.cancelled for job in self.waiting)
            if waiting >= self.limits.queue:
                raise overloaded(f"{waiting} requests are waiting; try again later")
            self.waiting.append(job)
            self.changed.notify()

    def close(self):
        """End the thread; jobs that are not done fail."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _run(self):
        while True:
            with self.changed:
                while not (self.waiting or self.running or self.closing):
                    self.changed.wait()
                if self.closing:
                    break
                self._drop()
                joining = self._take()
            self.running += joining
            try:
                if joining:
                    self.batching.join([job.prompt for job in joining])
                if self.running:
                    self.batching.step()
            except Exception as error:  # whatever it is, those that come after are served
                self._fail(RequestError(f"{type(error).__name__}: {error}", 500))
            tell([news for job in list(self.running) for news in self._report(job)])
            self.metrics.rows.set(self.limits.rows - self.batching.free)
        with self.changed:
            self.running += self.waiting
        self._fail(overloaded("the server is shutting down"))

    def _drop(self):
        """Forget what nobody waits for, and what is too late."""
        for job in [*self.running, *self.waiting]:
            if not (job.cancelled or job.late):
                continue
            tell([(job, too_late(job.seconds))])
            if job in self.running:
                self.batching.leave(job.prompt.answers)
                self.running.remove(job)
            else:
                self.waiting.remove(job)

    def _take(self) -> list[Job]:
        """The first that wait, for as many as there are rows; none overtakes another."""
        joining, free, longest = [], self.batching.free, 0
        while self.waiting and self.waiting[0].prompt.rows <= free:
            longest = max(longest, self.waiting[0].prompt.length)
            if joining and longest * (len(joining) + 1) > READ_TOGETHER:
                break
            joining.append(self.waiting.popleft())
            free -= joining[-1].prompt.rows
        self.metrics.waiting.set(len(self.waiting))
        return joining

    def _report(self, job: Job) -> list[tuple]:
        """What there is to tell of a job after a step."""
        answers, told = job.prompt.answers, []
        if not job.started and any(answer.ids or answer.spans for answer in answers):
            job.started = True
            self.metrics.first_token.observe(time.monotonic() - job.began)
        if job.followed:
            progress = [Progress(number, answer) for number, answer in enumerate(answers)]
            news = [p for p in progress if p.extent != job.told[p.number]]
            if news:
                job.told = [p.extent for p in progress]
                told.append((job, news))
        if all(answer.done for answer in answers):
            self.running.remove(job)
            made = sum(len(ids) for answer in answers for _, ids in answer.spans)
            self.metrics.tokens.labels("made").inc(made)
            told.append((job, None))
        return told

    def _fail(self, error: RequestError):
        """Tell what is running, and begin anew."""
        tell([(job, error) for job in self.running])
        self.running = []
        self.batching = ContinuousBatching(self.model, self.limits.rows, self.limits.room)
