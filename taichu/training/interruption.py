"""Ends that come from outside: SIGTERM and SIGINT, noted so that a loop can end at a good place."""

import signal
import threading


class Terminated(SystemExit):
    """SIGTERM ended a training whose checkpoint is saved; where nobody catches it, the process ends
    with exit code 0."""


class Interruption:
    """While it is entered, SIGTERM and SIGINT do no more than note that they came.

    A second SIGINT interrupts at once, as it would have without this; a second SIGTERM changes
    nothing. A signal that the process ignores stays ignored. Python gives signals to the main
    thread alone: entered in another one, this notes nothing.

    Whenever MindSpore compiles or starts a graph it takes SIGINT for itself, and keeps it: its
    handler (`DefaultIntHandler`, in C++) sends the process SIGTERM. So `listen` is to be called
    after it was at work. A SIGINT that comes before that counts as SIGTERM, which saves as well.

    Attributes:
        signal: the first that came, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def listen(self):
        """Take SIGINT back from MindSpore."""
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))

    def __exit__(self, *error):
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame):
        self.signal = self.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])

    def end(self):
        """Pass on what came.

        Raises:
            Terminated: it was SIGTERM. KeyboardInterrupt: it was SIGINT.
        """
        if self.signal == signal.SIGTERM:
            raise Terminated(0)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
