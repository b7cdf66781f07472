"""All figures of a model on the digits' test split; the keys are those of metrics.json."""

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tqdm import tqdm

from taichu.data.batches import parse_group
from taichu.data.prepared import prepare
from taichu.errors import ManifestError
from taichu.evaluation.captioning import captioning, text_from_nothing
from taichu.evaluation.codec import codec_figures
from taichu.evaluation.embeddings import Embeddings
from taichu.evaluation.generation import generation
from taichu.evaluation.judge import train_judges
from taichu.evaluation.retrieval import retrieval
from taichu.evaluation.zero_shot import zero_shot
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT

PARTS = 8  # of an evaluation, each a step of its progress bar


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured, and how media are sampled."""

    limit: int = 400  # test items a modality that are captioned and generated
    candidates: int = 8  # made for each item, of which the nearest its condition is kept
    temperature: float = 0.7  # of generated media
    top_p: float = 0.95  # of generated media
    guidance: float = 2.0  # classifier-free guidance scale of generated media
    caption_temperature: float = 0.5  # of captions
    seed: int = 0

    @property
    def media(self) -> Sampling:
        """How media are made from captions."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            guidance=self.guidance,
            seed=self.seed,
            candidates=self.candidates,
        )

    @property
    def captions(self) -> Sampling:
        """How captions are made from media."""
        return Sampling(
            temperature=self.caption_temperature, seed=self.seed, candidates=self.candidates
        )


def evaluate(
    model, manifest: Path | str, cache: Path | str, groups, config: EvaluationConfig
) -> dict:
    """Measure a model.

    Args:
        model: a `taichu.Taichu`.
        manifest: of a data set with the digits' labels.
        cache: folder of prepared grids.
        groups: the groups it was trained on, as in a recipe's mixture: says which pairs never were.
        config: see `EvaluationConfig`.

    Returns:
        zero_shot, retrieval, captioning, generation and codec, each by modality or pair, and the
        seconds each part took.

    Raises:
        ManifestError: a row lacks the digits' labels, or a split a modality of the model.
    """
    train, test = (prepare(manifest, s, model.config.modalities, cache) for s in ("train", "test"))
    for split, modality in product((train, test), model.adapters):
        if not len(split.having([modality])):
            raise ManifestError(f"{manifest}: a split without {modality}, which the model knows")
    for sample in train.samples + test.samples:
        if not {"digit", "caption"} <= sample.labels.keys():
            line = f"{manifest}:{sample.line}"
            raise ManifestError(f"{line}: no labels digit and caption, which the figures need")
    trained = [parse_group(group, model.adapters) for group in groups]
    metrics, seconds = {}, {}
    bar = tqdm(total=PARTS, desc="evaluation", unit="part")

    def part(name: str, function, *arguments):
        bar.set_postfix_str(name)
        start = time.monotonic()
        result = function(*arguments)
        seconds[name] = round(time.monotonic() - start, 1)
        bar.update()
        return result

    judges, centred = part("baselines", train_judges, model, train)
    embeddings = part("embeddings", Embeddings, model, test)
    metrics["zero_shot"] = part("zero_shot", zero_shot, embeddings, judges)
    metrics["retrieval"] = part("retrieval", retrieval, embeddings, trained)
    metrics["captioning"] = part(
        "captioning", captioning, model, test, judges, config.limit, config.captions
    )
    metrics["generation"] = part(
        "generation", generation, model, test, judges, centred, config.limit, config.media
    )
    metrics["generation"][TEXT] = part("text", text_from_nothing, model, 100, config.seed)
    metrics["codec"] = part("codec", codec_figures, model, test)
    bar.close()
    metrics["evaluation_seconds"] = seconds
    return metrics
