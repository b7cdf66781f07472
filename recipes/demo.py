"""The whole way in one command: data, codecs, alignment, backbone, evaluation, report.

    taichu demo                      (recipes/demo.yaml, a quarter of an hour)
    taichu train digits_full         (recipes/digits_full.yaml, up to an hour)

Ten digits seen, heard, moving, solid and named. The backbone is first trained by grouped alignment
alone, since what it then knows is learned several times faster than beside decoding. Every stage
leaves its result in ``out`` and is reused when it is there, so a second run continues where the
first one stopped.
"""

import json
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ascend.device import choose_device
from ascend.precision import choose_precision
from recipes import codecs, grouped_alignment, pretrain
from taichu.config import load_size
from taichu.data.batches import MixtureConfig
from taichu.data.digits.build import build_digits
from taichu.data.prepared import prepare
from taichu.errors import ConfigError
from taichu.evaluation import EvaluationConfig, evaluate
from taichu.inference.pretrained import Taichu
from taichu.model.backbone import count_parameters
from taichu.report import write_report
from taichu.report.floors import FLOORS
from taichu.storage.model_folder import write_json
from taichu.training.log import read_log
from taichu.training.profiling import ProfileConfig
from taichu.training.trainer import TrainConfig

# its evaluation and report are one process's; launched as ranks it is refused, with this hint
ONE_PROCESS = "launch codecs, then pretrain"


@dataclass(frozen=True)
class Config:
    data: str
    out: str
    model: str
    codecs: TrainConfig
    mixture: MixtureConfig
    alignment: TrainConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    profile: ProfileConfig | None = None
    floors: str = "demo"
    earlier: str | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self):
        if self.floors not in FLOORS:
            known = " or ".join(FLOORS)
            raise ConfigError(f"floors: must be {known}, not {self.floors!r}")


def main(config: Config) -> Path:
    """Run every stage that is not done yet; returns the folder."""
    out, clock = Path(config.out), Clock(Path(config.out) / "seconds.json")
    report, figures, folder = out / "report.html", out / "metrics.json", out / "model"
    said = f"report:  {report}\nmetrics: {figures}\nmodel:   {folder}"
    settings, earlier = asdict(config), read_earlier(config.earlier)
    if is_done(out, settings):
        print(f"done before, with these settings; delete {out} to start over", said, sep="\n")
        return out
    choose_device(config.device)
    choose_precision(config.precision)
    shared = ("model", "profile", "device", "precision", "seed")
    common = {name: getattr(config, name) for name in shared}

    with clock("data"):
        manifest = str(build_digits(Path(config.data), config.seed))
    common |= {"manifest": manifest, "cache": str(out / "cache")}
    with clock("codecs"):
        codecs.main(codecs.Config(out=str(out), train=config.codecs, **common))
    common |= {"codecs": str(out), "mixture": config.mixture}
    aligned = out / "alignment"
    with clock("alignment"):
        grouped_alignment.main(pretrain.Config(out=str(aligned), train=config.alignment, **common))
    with clock("backbone"):
        start = str(aligned / "model")
        pretrain.main(pretrain.Config(out=str(out), train=config.train, start=start, **common))

    model = Taichu.from_pretrained(folder)
    with clock("evaluation"):
        metrics = evaluate(model, manifest, out / "cache", config.mixture.groups, config.evaluation)
    logs = {name: out / "training" / name / "metrics.jsonl" for name in ("backbone", *model.codecs)}
    logs = {"alignment": aligned / "training" / "backbone" / "metrics.jsonl", **logs}
    metrics |= {
        "seconds": clock.seconds,
        "tokens_per_second": tokens_per_second(logs["backbone"], config.mixture),
        "peak_memory_mb": peak_memory_mb(),
        "settings": settings,
        "parameters": count_parameters(
            load_size(config.model), model.vocabulary.size, list(model.grids.values())
        ),
    }
    with clock("report"):
        data = prepare(manifest, "test", model.config.modalities, out / "cache")
        how = FLOORS[config.floors], config.evaluation.media, config.evaluation.captions
        write_report(report, metrics, model, data, logs, *how, config.seed, earlier)
    write_json(figures, metrics)  # last: it says that all is done
    print(said)
    return out


def read_earlier(name: str | None) -> dict | None:
    """The metrics of an earlier run, from a file named from here or standing beside this one.

    Raises:
        ConfigError: there is no such file, or it holds no metrics.
    """
    if name is None:
        return None
    places = Path(name), Path(__file__).with_name(name)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError(f"earlier: {name}: no such file")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict):
        raise ConfigError(f"earlier: {path}: must be the metrics.json of a run")
    return metrics


def is_done(out: Path, settings: dict) -> bool:
    """Whether a run with these settings has left all its results here."""
    held = all((out / name).is_file() for name in ("metrics.json", "report.html"))
    if not held or not (out / "model" / "config.json").is_file():
        return False
    made = json.loads((out / "metrics.json").read_text(encoding="utf-8")).get("settings")
    return made == json.loads(json.dumps(settings))


class Clock:
    """Adds up the seconds of each stage over all runs in a folder."""

    def __init__(self, path: Path):
        self.path, self.name = path, ""
        self.seconds = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, name: str) -> "Clock":
        self.name = name
        return self

    def __enter__(self):
        print(f"== {self.name}", flush=True)
        self.start = time.monotonic()

    def __exit__(self, kind, error, trace):
        spent = time.monotonic() - self.start
        self.seconds[self.name] = round(self.seconds.get(self.name, 0) + spent, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.seconds)


def tokens_per_second(log: Path, mixture: MixtureConfig) -> float:
    """Positions that hold a token, trained on a second, over the whole backbone run."""
    rows = [row for row in read_log(log) if "padding" in row]
    filled = 1 - sum(row["padding"] for row in rows) / len(rows)
    return round(rows[-1]["step"] * mixture.rows * mixture.length * filled / rows[-1]["seconds"], 1)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
