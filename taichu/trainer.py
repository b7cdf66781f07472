"""The training loop: steps, log, validation, checkpoints, and going on after a stop."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import ops
from tqdm import tqdm

from ascend.operators import AdamW
from taichu.checkpoint import as_tensors, load_parameters, load_tensors, save_tensors
from taichu.errors import CheckpointError, TaichuError
from taichu.prefetch import prefetch
from taichu.training_step import TrainingStep

KEPT = 2  # checkpoints; a damaged one leaves the one before it


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


class Trainer:
    """Trains an objective on numbered batches, in a folder that it can go on from.

    Args:
        objective: Cell whose output is (loss, parts).
        batches: k -> batch with ``arrays()``; a function of k alone.
        part_names: names of the parts, for the log.
        config: see `TrainConfig`.
        out: folder for checkpoints/, metrics.jsonl and curves.png.
        validate: called now and then, and at the end; returns figures for the log.
        title: what the progress bar is called.
        graphs: folder of compiled graphs, see `taichu.compile_cache`.
    """

    def __init__(
        self,
        objective,
        batches: Callable,
        part_names: list[str],
        config: TrainConfig,
        out: Path | str,
        validate: Callable[[], dict] | None = None,
        title: str = "training",
        graphs: Path | str | None = None,
    ):
        self.objective, self.batches, self.part_names = objective, batches, part_names
        self.config, self.out, self.validate, self.title = config, Path(out), validate, title
        self.optimizer = AdamW(
            objective.trainable_params(),
            config.rate,
            config.beta1,
            config.beta2,
            weight_decay=config.weight_decay,
            clip=config.clip,
        )
        how = config.accumulate, config.recompute
        self.training_step = TrainingStep(objective, self.optimizer, *how, graphs)
        self.step, self.seconds = 0, 0.0
        self.waited = 0.0  # seconds of them, in this process, that no batch was ready

    @property
    def progress(self) -> float:
        """Share of the run that is done: by steps or by time, whichever is further."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step / self.config.steps, by_time))

    def run(self):
        """Train to the end, from the newest checkpoint where there is one.

        Raises:
            TaichuError: the loss is no longer finite.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.progress >= 1:
            return
        print(f"{self.title}: compiling the training step, once ...", flush=True)
        before = self.seconds
        k = self.config.accumulate
        batches = prefetch(self.batches, self.step * k, self.config.steps * k)
        bar = tqdm(total=self.config.steps, initial=self.step, desc=self.title, unit="step")
        with bar, (self.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
            self._log = log
            clock = None
            for batch in self._timed(batches):
                outputs = self._train_on(batch)
                if self.training_step.calls % k:
                    continue
                self.step += 1
                if clock is None:  # the first step compiles: its time is nobody's
                    outputs[0].asnumpy()
                else:
                    self.seconds += time.monotonic() - clock
                clock = time.monotonic()
                done = self.progress >= 1
                if self.step % self.config.log_every == 0 or self.step == 1 or done:
                    loss = self._write_log(batch, outputs)
                    left = self.seconds * (1 / self.progress - 1)
                    bar.set_postfix_str(f"loss {loss:.3f}, {left / 60:.1f} min left", refresh=False)
                bar.update()
                every = self.config.validate_every
                if self.validate and (done or (every and self.step % every == 0)):
                    self._write({"step": self.step, "validation": self.validate()})
                    clock = time.monotonic()
                if done or self.step % self.config.checkpoint_every == 0:
                    self._require_finite(outputs)  # never keep what cannot be gone on from
                    self.save()
                if done:
                    break
        batches.close()
        share = self.waited / max(1e-9, self.seconds - before)
        print(f"{self.title}: {share:.1%} of the time waiting for data", flush=True)
        draw_curves(self.out / "metrics.jsonl", self.out / "curves.png")

    def _timed(self, batches):
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            if self.training_step.calls:  # the first wait is before the clock starts
                self.waited += time.monotonic() - start
            yield batch

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
        ops.assign(self.optimizer.learning_rate, ms.Tensor(self.rate(), ms.float32))
        return self.training_step(*map(ms.Tensor.from_numpy, batch.arrays()))

    def _require_finite(self, outputs):
        loss, _, norm = outputs  # gradients that are not finite spoil the parameters too
        if not (np.isfinite(loss.asnumpy()).all() and np.isfinite(norm.asnumpy()).all()):
            raise TaichuError(
                f"{self.title}: the loss is not finite at step {self.step}; lower train.rate "
                f"(the last good checkpoint is in {self.out / 'checkpoints'})"
            )

    def _write_log(self, batch, outputs) -> float:
        loss, parts, norm = (np.atleast_1d(o.asnumpy()) for o in outputs)
        self._require_finite(outputs)
        row = {
            "step": self.step,
            "loss": float(loss[0]),
            "rate": self.rate(),
            "norm": float(norm[0]),
        }
        # a part that is 0 is of something that this batch does not hold
        row.update({n: round(float(p), 5) for n, p in zip(self.part_names, parts) if p})
        row["seconds"], row["waited"] = round(self.seconds, 2), round(self.waited, 3)
        if hasattr(batch, "padding"):
            row["padding"] = round(batch.padding, 4)
        self._write(row)
        return row["loss"]

    def _write(self, row: dict):
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()

    def save(self):
        """Write a checkpoint: parameters, moments, and the place in the data."""
        folder = self.out / "checkpoints"
        notes = {"step": self.step, "seconds": self.seconds}
        path = folder / f"step-{self.step:08d}.safetensors"
        save_tensors(path, as_tensors(self._state()), notes)
        for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()

    def _state(self) -> dict[str, ms.Parameter]:
        optimizer = self.optimizer
        state = [*optimizer.parameters, *optimizer.first, *optimizer.second, optimizer.global_step]
        return {parameter.name: parameter for parameter in state}

    def _resume(self):
        for path in sorted((self.out / "checkpoints").glob("step-*.safetensors"), reverse=True):
            try:
                tensors, notes = load_tensors(path)
            except CheckpointError as error:
                print(f"{error}; trying the checkpoint before it", flush=True)
                continue
            load_parameters(self._state(), tensors, path)
            self.step, self.seconds = notes["step"], notes["seconds"]
            print(f"{self.title}: goes on from step {self.step} ({path})", flush=True)
            break
        log = self.out / "metrics.jsonl"
        if log.is_file():  # rows past the checkpoint will be written again
            rows = [row for row in read_log(log) if row["step"] <= self.step]
            log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_log(path: Path | str) -> list[dict]:
    """Rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_curves(log: Path, picture: Path):
    """Draw every column of a log against the step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in read_log(log) if "loss" in row]
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [n for n in names if n not in ("step", "seconds", "waited", "padding", "rate")]
    figure, axes = pyplot.subplots(1, max(1, len(names)), figsize=(3 * max(1, len(names)), 2.4))
    for axis, name in zip(np.atleast_1d(axes), names):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points), linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)
    pyplot.close(figure)
