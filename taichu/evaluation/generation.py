"""Media made from held-out captions, named by a judge that never saw the model."""

import numpy as np

from taichu.evaluation.judge import distinct
from taichu.generation import Sampling, generate
from taichu.vocabulary import TEXT


def generation(model, data, judges, limit: int, sampling: Sampling) -> dict[str, dict]:
    """For each grid modality: ``agreement``, the share of generated items in which the judge sees
    the caption's digit; ``ceiling``, the same for real test items passed through the codec; and
    ``real``, for the real items themselves.

    A caption is one of the item's own texts; for audio of the utterances whose text is the digit.
    """
    figures = {}
    for modality, judge in judges.items():
        samples, rows = distinct(data, modality)
        subject = "digit" if modality == "audio" else modality
        fits = [data.samples[i].labels["caption"] == subject for i in samples]
        samples, rows = samples[fits], rows[fits]
        chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:limit])
        samples, rows = samples[chosen], rows[chosen]
        digits = np.array([data.samples[i].labels["digit"] for i in samples])
        # the languages in turn
        texts = [
            data.samples[i].texts[k % len(data.samples[i].texts)][1] for k, i in enumerate(samples)
        ]
        made = generate(model, modality, [{TEXT: text} for text in texts], sampling)
        real = np.asarray(data.grids[modality][rows], np.float32)
        rebuilt = model.decode_codes(modality, model.encode_grids(modality, real))
        figures[modality] = {
            "agreement": float((judge(np.stack([g.grid for g in made])) == digits).mean()),
            "ceiling": float((judge(rebuilt) == digits).mean()),
            "real": float((judge(real) == digits).mean()),
            "chance": 0.1,
            "n": len(digits),
        }
    return figures
