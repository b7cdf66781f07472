"""Some steps of a training under the profiler: a trace, and a table of the slowest operators."""

import csv
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ascend.device import DeviceError
from ascend.profile import KernelProfiler, sum_by_operator
from taichu.errors import ConfigError

SHOWN = 12  # operators printed; the file has all


@dataclass(frozen=True)
class ProfileConfig:
    """Which steps of a training are profiled."""

    steps: tuple[int, int]  # the first and the last, both profiled

    def __post_init__(self):
        first, last = self.steps
        if not 1 <= first <= last:
            raise ConfigError(
                "profile.steps: must be the first and the last step, counted from 1, "
                f"not {list(self.steps)}"
            )


class StepProfiler:
    """Entered for a training, profiles those of its steps that a config names.

    Leaves MindSpore's trace and operators.csv, and prints the slowest operators. A training that
    ends or goes on between the two steps is profiled in part. What prevents a profile is said in
    one line; the training goes on.

    Args:
        config: None profiles nothing.
        folder: for the files; each of several ranks (RANK_ID) has a folder rank_N of its own in it.
        title: what the printed lines begin with.
    """

    def __init__(self, config: ProfileConfig | None, folder: Path, title: str):
        self.config, self.folder, self.title = config, folder, title
        if "RANK_ID" in os.environ:
            self.folder = folder / f"rank_{os.environ['RANK_ID']}"
        self._profiler: KernelProfiler | None = None
        self._first = self._last = 0  # that were profiled

    def __enter__(self) -> "StepProfiler":
        return self

    def before(self, step: int, outputs):
        """Begin, where this step is the first; ``outputs``: of the step before, None at first."""
        if self.config is None or self._first:
            return
        first, last = self.config.steps
        if first <= step <= last:
            if outputs is not None:
                outputs[0].asnumpy()  # wait for it
            self._first = step
            with self._saying_what_fails():
                profiler = KernelProfiler(self.folder)
                profiler.start()
                self._profiler = profiler

    def after(self, step: int, outputs) -> bool:
        """End, where this step is the last; whether it was: that took some seconds."""
        self._last = step
        if self._profiler is None or step < self.config.steps[1]:
            return False
        outputs[0].asnumpy()
        self._stop()
        return True

    def __exit__(self, *error):
        if self._profiler:
            self._stop()
        elif self.config and not self._first:
            first, last = self.config.steps
            print(f"{self.title}: no profile: steps {first} to {last} were not trained now")

    def _stop(self):
        profiler, self._profiler = self._profiler, None
        with self._saying_what_fails():
            sums = sum_by_operator(profiler.stop())
            with (self.folder / "operators.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["operator", "calls", "milliseconds"])
                for operator, (calls, seconds) in sums.items():
                    table.writerow([operator, calls, round(seconds * 1e3, 4)])
            print(f"{self.title}: profile of steps {self._first} to {self._last}: {self.folder}")
            self._print(sums)

    def _print(self, sums: dict[str, tuple[int, float]]):
        steps, whole = self._last + 1 - self._first, sum(seconds for _, seconds in sums.values())
        print(f"{'operator':<30}{'calls a step':>14}{'ms a step':>12}{'share':>8}")
        for operator, (calls, seconds) in list(sums.items())[:SHOWN]:
            took = f"{seconds / steps * 1e3:>12.3f}{seconds / whole:>8.1%}"
            print(f"{operator:<30}{calls / steps:>14.1f}{took}", flush=True)

    @contextmanager
    def _saying_what_fails(self):
        try:
            yield
        except (DeviceError, OSError) as error:
            print(f"{self.title}: no profile: {error}", flush=True)
