"""The training loop: steps, log, validation, checkpoints, and going on after a stop."""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from tqdm import tqdm

from ascend.device_matrix import device_matrix
from ascend.operators import AdamW, assign
from ascend.ranks import mean_over_ranks
from taichu.data.prefetch import prefetch
from taichu.errors import DiskFullError, TaichuError
from taichu.model.stage_parts import shapes_elsewhere
from taichu.storage.checkpoint import set_parameter
from taichu.storage.checkpoint_folder import CheckpointFolder
from taichu.training.console import Console
from taichu.training.hang_watch import HangWatch
from taichu.training.interruption import Interruption, Terminated
from taichu.training.log import TrainingLog, cut_log, draw_curves
from taichu.training.pipeline import make_training_step
from taichu.training.profiling import ProfileConfig, StepProfiler

# updates left out in a row that end a run: float16 may leave out 16 until its scale has come down
PATIENCE = 20


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation and bookkeeping of one run."""

    steps: int  # updates
    minutes: float = (
        0.0  # end, with the schedule, at this training time where it comes first; 0: never
    )
    rate: float = 1e-3  # peak learning rate
    final_rate: float = 0.05  # share of the peak that the cosine ends at
    warmup: float = 0.03  # share of the run over which the rate rises
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    clip: float = 1.0  # largest global norm of the gradients
    accumulate: int = 1  # batches an update
    recompute: bool = False  # blocks for their gradients, in less memory
    log_every: int = 10  # steps
    validate_every: int = 0  # steps; 0: at the end only
    checkpoint_every: int = 200  # steps
    hang_minutes: float = 30.0  # that a step may take, else the process is ended; 0: any


class Trainer:
    """Trains an objective on numbered batches, in a folder that it can go on from.

    Args:
        objective: Cell whose output is (loss, parts).
        batches: k -> batch with ``arrays()``; a function of k alone.
        part_names: names of the parts, for the log.
        config: see `TrainConfig`.
        out: folder for checkpoints/, metrics.jsonl, curves.png and profile/.
        validate: called now and then, and at the end; returns figures for the log.
        title: what the progress bar is called.
        graphs: folder of compiled graphs, see `taichu.training.compile_cache`.
        profile: steps to be profiled, if any.
        make_optimizer: makes the optimizer, called as `AdamW` is; such as a tuning method's own.
    """

    def __init__(
        self,
        objective,
        batches: Callable,
        part_names: Sequence[str],
        config: TrainConfig,
        out: Path | str,
        validate: Callable[[], dict] | None = None,
        title: str = "training",
        graphs: Path | str | None = None,
        profile: ProfileConfig | None = None,
        make_optimizer: Callable[..., AdamW] = AdamW,
    ):
        self.objective, self.batches, self.part_names = objective, batches, part_names
        self.config, self.out, self.validate, self.title = config, Path(out), validate, title
        self.ranks = device_matrix().ranks
        self.checkpoints = CheckpointFolder(self.out / "checkpoints", self.ranks)
        self.log_path = self.out / "metrics.jsonl" if self.ranks.first else Path(os.devnull)
        self.profile = profile
        self.optimizer = make_optimizer(
            objective.trainable_params(),
            config.rate,
            config.beta1,
            config.beta2,
            weight_decay=config.weight_decay,
            clip=config.clip,
        )
        how = config.accumulate, config.recompute
        graphs = graphs if self.ranks.size == 1 else None
        self.training_step = make_training_step(objective, self.optimizer, *how, graphs)
        self.assign = assign()
        self.step, self.seconds = 0, 0.0
        # what ranks go by together: their mean time and whether one is to stop, as last exchanged
        self.elapsed, self.stopping = 0.0, False
        self.made, self.made_at = 0, 0  # updates made, and the step at which that was last seen
        self.waited = 0.0  # seconds of them, in this process, that no batch was ready

    @property
    def progress(self) -> float:
        """Share of the run that is done: by steps or by time, whichever is further."""
        by_time = self.elapsed / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step / self.config.steps, by_time))

    def run(self):
        """Train to the end, from the newest checkpoint where there is one.

        SIGTERM and SIGINT end the training after the running step, with a checkpoint; several ranks
        end together, at the next step that is logged. Where a checkpoint finds the disk full,
        training goes on and the next one tries again.

        An update whose gradients are not finite is left out, and counted in the log.

        Raises:
            TaichuError: nothing but such updates for long.
            CheckpointError: all checkpoints are damaged.
            DiskFullError: the last checkpoint could not be saved.
            Terminated, KeyboardInterrupt: after SIGTERM, SIGINT.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.progress >= 1:
            return
        print(f"{self.title}: compiling the training step, once ...", flush=True)
        before = self.seconds
        with Interruption() as interruption:
            self._train(interruption)
            share = self.waited / max(1e-9, self.seconds - before)
            print(f"{self.title}: {share:.1%} of the time waiting for data", flush=True)
            if self.ranks.first:
                draw_curves(self.log_path, self.out / "curves.png")
        if self.stopping:
            name = interruption.signal.name if interruption.signal else "another rank's signal"
            folder = self.checkpoints.path
            print(f"{self.title}: {name}: step {self.step} is saved in {folder}", flush=True)
            interruption.end()
            raise Terminated(0)

    def _train(self, interruption: Interruption):
        k, steps, self._console = self.config.accumulate, self.config.steps, Console(sys.stderr)
        bar_of = {"desc": self.title, "unit": "step", "file": self._console}
        bar_of["disable"] = not self.ranks.first
        with (
            closing(prefetch(self.batches, self.step * k, steps * k)) as batches,
            TrainingLog(self.log_path) as self._log,
            tqdm(total=steps, initial=self.step, **bar_of) as bar,
            StepProfiler(self.profile, self.out / "profile", self.title) as profiler,
            HangWatch(self.config.hang_minutes) as watch,
        ):
            clock = outputs = None
            self.training_step.meanwhile = interruption.listen
            for batch in self._timed(batches, interruption):
                if self.training_step.calls % k == 0:
                    profiler.before(self.step + 1, outputs)
                outputs = self._train_on(batch)
                if self.training_step.calls % k:
                    continue
                self.step += 1
                if clock is None:  # the first step compiles: its time is nobody's
                    outputs[0].asnumpy()
                else:
                    self.seconds += time.monotonic() - clock
                clock = time.monotonic()
                watch.restart()
                if profiler.after(self.step, outputs):
                    clock = time.monotonic()
                if self.ranks.size == 1:
                    self.elapsed = self.seconds
                done = self.progress >= 1
                if self.step % self.config.log_every == 0 or self.step == 1 or done:
                    loss = self._write_log(batch, outputs, interruption)
                    left = self.seconds * (1 / self.progress - 1)
                    bar.set_postfix_str(f"loss {loss:.3f}, {left / 60:.1f} min left", refresh=False)
                bar.update()
                every = self.config.validate_every
                if self.validate and (done or (every and self.step % every == 0)):
                    self._log.write({"step": self.step, "validation": self.validate()})
                    clock = time.monotonic()
                    watch.restart()
                if self.ranks.size == 1:
                    self.stopping = interruption.signal is not None
                last = done or self.stopping
                if last or self.step % self.config.checkpoint_every == 0:
                    self._require_updates()
                    self._save(last)
                    watch.restart()
                if last:
                    break

    def _timed(self, batches, interruption: Interruption):
        while True:
            interruption.listen()
            start = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            if self.training_step.calls:  # the first wait is before the clock starts
                self.waited += time.monotonic() - start
            yield batch

    def evaluate(self, *arrays) -> tuple[ms.Tensor, ms.Tensor]:
        """(loss, parts) of a batch's arrays; nothing is learned from it."""
        return self.training_step.evaluate(*map(ms.Tensor.from_numpy, arrays))

    def rate(self) -> float:
        """Learning rate now: linear warm-up, then cosine (1608.03983, eq. 5)."""
        config, p = self.config, self.progress
        if p < config.warmup:
            return config.rate * max(p, 1 / config.steps) / config.warmup
        turn = math.pi * (p - config.warmup) / max(1e-9, 1 - config.warmup)
        low = config.final_rate
        return config.rate * (low + (1 - low) * 0.5 * (1 + math.cos(turn)))

    def _train_on(self, batch):
        # assign writes in place; set_data would leave the compiled graph with the old value
        self.assign(self.optimizer.learning_rate, ms.Tensor(self.rate(), ms.float32))
        return self.training_step(*map(ms.Tensor.from_numpy, batch.arrays()))

    def _require_updates(self):
        made = int(self.optimizer.global_step.asnumpy()[0])
        if made > self.made:
            self.made, self.made_at = made, self.step
        elif self.step - self.made_at >= PATIENCE:
            raise TaichuError(
                f"{self.title}: no gradient was finite from step {self.made_at + 1} "
                f"to {self.step}; lower train.rate "
                f"(the last good checkpoint is in {self.checkpoints.path})"
            )

    def _write_log(self, batch, outputs, interruption: Interruption) -> float:
        values = np.concatenate([np.atleast_1d(output.asnumpy()) for output in outputs])
        if self.ranks.size > 1:
            own = np.array([self.seconds, interruption.signal is not None], np.float32)
            elapsed, stopping, *values = mean_over_ranks(np.concatenate((own, values)))
            self.elapsed, self.stopping = float(elapsed), bool(stopping > 0)
        loss, *parts, norm = map(float, values)
        self._require_updates()
        row = {"step": self.step, "rate": self.rate()}
        for name, value in (("loss", loss), ("norm", norm)):
            if math.isfinite(value):  # JSON has no other numbers
                row[name] = value
        # a part that is 0 is of something that this batch does not hold
        named = zip(self.part_names, parts)
        row.update({n: round(p, 5) for n, p in named if p and math.isfinite(p)})
        row["seconds"], row["waited"] = round(self.seconds, 2), round(self.waited, 3)
        if self.step > self.made:
            row["left_out"] = self.step - self.made
        if hasattr(batch, "padding"):
            row["padding"] = round(batch.padding, 4)
        self._log.write(row)
        return loss

    def save(self) -> Path:
        """Write a checkpoint: parameters, moments, and the place in the data.

        Raises:
            DiskFullError: there is no room for it; those before it are left.
        """
        notes = {"step": self.step, "seconds": self.seconds}
        return self.checkpoints.save(self.step, self._state(), notes)

    def _save(self, last: bool):
        try:
            self.save()
        except DiskFullError as error:
            if last:
                raise
            said = f"{error}; training goes on, and the next checkpoint tries again"
            tqdm.write(said, self._console)

    def _state(self) -> dict[str, ms.Parameter]:
        optimizer = self.optimizer
        state = [*optimizer.parameters, *optimizer.first, *optimizer.second, optimizer.global_step]
        state += optimizer.others
        if self.training_step.loss_scale:
            state += self.training_step.loss_scale.get_parameters()
        return {parameter.name: parameter for parameter in state}

    def _resume(self):
        state = self._state()
        elsewhere = set()
        for name in shapes_elsewhere(self.objective):
            elsewhere |= {name, f"first_moment.{name}", f"second_moment.{name}"}
        arrays, notes, source = self.checkpoints.load(state, elsewhere)
        if arrays:
            for name, parameter in state.items():
                set_parameter(parameter, arrays[name])
            self.step, self.seconds = notes["step"], notes["seconds"]
            self.elapsed, self.made_at = self.seconds, self.step
            print(f"{self.title}: goes on from step {self.step} ({source})", flush=True)
        self.optimizer.take_parts()
        if self.log_path.is_file():
            cut_log(self.log_path, self.step)
