"""A process that no longer gets anywhere is ended, and shows where it stood."""

import faulthandler
import signal

FIRST = 4  # times as long for what comes first, which compiles
STDERR = 2


class HangWatch:
    """While it is entered, ends the process where `restart` is not called in time.

    The Python stacks of all threads are then written to standard error, and SIGALRM ends the
    process. Both are done in C on a timer of the kernel's: they need no lock that whatever hangs
    may hold, Python's own among them.

    Args:
        minutes: that may pass between two calls; four times as many until the first one. 0: any.
    """

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes

    def __enter__(self) -> "HangWatch":
        if self.seconds:
            # the handler before it, which chain calls, is the system's: it ends the process
            faulthandler.register(signal.SIGALRM, STDERR, all_threads=True, chain=True)
            signal.setitimer(signal.ITIMER_REAL, FIRST * self.seconds)
        return self

    def restart(self):
        """Say that all goes on."""
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *error):
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.unregister(signal.SIGALRM)


def show_stacks_when_asked():
    """From now on SIGUSR1 has the process write the stacks of all its threads, and go on."""
    faulthandler.register(signal.SIGUSR1, STDERR, all_threads=True)
