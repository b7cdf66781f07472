"""Launching a command as many ranks, and looking after them: output, failures, stops, restarts.

msrun starts the ranks. What it leaves to us, measured with 2.10: when it is ended by SIGTERM it
leaves all ranks running; after a rank's failure it returns half a minute late; Ctrl-C kills the
ranks, which cannot save; a rank that hangs is not noticed; nothing is started again.
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ascend.msrun import Cluster, StartedRanks
from ascend.rank_process import PASSED_ON

TICK_SECONDS = 0.2
DUMP_SECONDS = 3  # that ranks have to write their stacks
LINES = 20  # of a log, shown after a failure
STACK_LINES = 60
LONGEST = 1 << 16  # bytes of a log that are looked at for them


def launch(
    command: Sequence[str],
    logs: Path | str,
    cluster: Cluster,
    restarts: int = 0,
    bind_cores: bool = False,
    silence: float = 0.0,
    grace: float = 120.0,
) -> bool:
    """Run a command once for each rank; returns whether all ranks of this node exited with 0.

    The first rank's output is shown as it comes. When a rank fails, all are ended, and the last
    lines of its log are shown. SIGTERM and SIGINT are passed on to the ranks as SIGTERM; a second
    one ends them. Nothing that was started is left behind. To be called in the main thread.

    Args:
        command: program and arguments; it learns its rank by `ascend.ranks`.
        logs: folder; each attempt has one in it: 1, 2, ..., with several nodes in node_N. Logs are
            rank_N.log.
        cluster: how many ranks there are, and which of them here.
        restarts: times that the command is run again after a failure.
        bind_cores: give each rank processor cores of its own.
        silence: seconds without a word in any rank's log after which the ranks are taken to hang;
            they get SIGUSR1, to write their stacks, and have failed. 0: never.
        grace: seconds from a signal that is passed on to the ranks' end.

    Raises:
        KeyboardInterrupt: after SIGINT, when the ranks have ended by themselves.
    """
    logs = Path(logs) / f"node_{cluster.node_rank}" if cluster.nodes > 1 else Path(logs)
    with Stop() as stop:
        for attempt in range(restarts + 1):
            ranks = StartedRanks(command, _next_folder(logs), cluster, attempt, bind_cores)
            try:
                failure = _watch(ranks, stop, silence, grace)
            finally:
                ranks.end()
            if failure is None:
                if signal.SIGINT in stop.signals:
                    raise KeyboardInterrupt
                return True
            _say(failure)
            if stop.signals:
                return False
            if attempt < restarts:
                _say(f"starting again, restart {attempt + 1} of {restarts}")
    return False


class Stop:
    """Collects the signals that ask to stop, in place of ending by them."""

    def __init__(self):
        self.signals: list[int] = []

    def __enter__(self):
        def note(number, frame):
            self.signals.append(number)

        self._before = {number: signal.signal(number, note) for number in PASSED_ON}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _watch(ranks: StartedRanks, stop: Stop, silence: float, grace: float) -> str | None:
    """Wait for the ranks' end; returns what has failed, or None."""
    names = [str(rank) for rank in ranks.logs]
    live, written = Live(ranks.logs[ranks.cluster.ranks[0]]), _written(ranks)
    heard, deadline = time.monotonic(), None
    while True:
        time.sleep(TICK_SECONDS)
        over, lost = ranks.process.poll() is not None, ranks.lost()
        codes = ranks.ended()  # after that: what is over by then is in it
        live.show()
        for name, code in codes.items():
            if code:
                return _describe_failure(ranks, name, code)
        if all(name in codes for name in names):
            if over or ranks.cluster.nodes == 1:  # other nodes may yet need the scheduler
                return None
            continue
        for name in lost:
            if name not in codes:
                end = _last_lines(ranks.logs[int(name)])
                return f"rank {name} was killed with the process that watches it; {end}"
        if over:
            code, end = ranks.process.returncode, _last_lines(ranks.first_log)
            return f"the ranks were not brought together: msrun's exit code is {code}; {end}"
        now, before = time.monotonic(), written
        if stop.signals and deadline is None:
            _say(f"the ranks are told to stop, within {grace:g} s; a second signal ends them")
            # whatever came here: of SIGINT a rank would say that it was not done
            if not ranks.signal(signal.SIGTERM):
                return "stopped before the ranks had started"
            deadline = now + grace
        if deadline and (now > deadline or len(stop.signals) > 1):
            left = [name for name in names if name not in codes]
            return f"killed before they had stopped by themselves: ranks {', '.join(left)}"
        written = _written(ranks)
        if written != before:
            heard = now
        if silence and now - heard > silence:
            return _describe_hang(ranks, silence)


class Live:
    """Shows a growing file on the standard output."""

    def __init__(self, path: Path):
        self.path, self.place = path, 0

    def show(self):
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.place)
            new = file.read()
        self.place += len(new)
        sys.stdout.flush()
        sys.stdout.buffer.write(new)  # as it is: a character may have been cut in two
        sys.stdout.flush()


def _describe_failure(ranks: StartedRanks, name: str, code: int) -> str:
    if name == "scheduler":
        who, log = "the scheduler", ranks.folder / "scheduler.log"
    else:
        who, log = f"rank {name}", ranks.logs[int(name)]
    how = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.Signals(-code).name})"
    return f"{who} ended with {how}; {_last_lines(log)}"


def _describe_hang(ranks: StartedRanks, silence: float) -> str:
    before = _written(ranks)
    ranks.signal(signal.SIGUSR1)
    time.sleep(DUMP_SECONDS)
    stacks = [_last_lines(log, STACK_LINES, before[rank]) for rank, log in ranks.logs.items()]
    since = f"no rank has written anything for {silence / 60:g} minutes"
    return "\n".join([f"{since}, they hang; where each of them is:", *stacks])


def _written(ranks: StartedRanks) -> dict[int, int]:
    """Bytes of each rank's log."""
    return {r: log.stat().st_size if log.exists() else 0 for r, log in ranks.logs.items()}


def _last_lines(log: Path, count: int = LINES, start: int = 0) -> str:
    """Lines of a log, indented below its path; of a progress bar only how it stands."""
    text = ""
    if log.exists():
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LONGEST))
            text = file.read().decode(errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return "\n    ".join([f"the end of {log}:", *lines[-count:]])


def _next_folder(logs: Path) -> Path:
    """The first of 1, 2, ... that no attempt has had, made."""
    logs = logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    numbers = [int(folder.name) for folder in logs.iterdir() if folder.name.isdigit()]
    folder = logs / str(max(numbers, default=0) + 1)
    folder.mkdir()
    return folder


def _say(message: str):
    print(f"launch: {message}", file=sys.stderr, flush=True)
