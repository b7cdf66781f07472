"""Media made from held-out captions, named by a judge that never saw the model."""

import numpy as np

from taichu.evaluation.judge import distinct
from taichu.inference.generation import generate
from taichu.inference.sampling import Sampling
from taichu.vocabulary import TEXT


def generation(model, data, judges, centred, limit: int, sampling: Sampling) -> dict[str, dict]:
    """For each grid modality: ``agreement``, the share of generated items in which the judge sees
    the caption's digit; ``ceiling``, the same for real test items passed through the codec; and
    ``real``, for the real items themselves.

    A caption is one of the item's own texts. Audio is judged on the utterances whose text is the
    digit alone, and apart from them, as ``whole_caption``, on those that say attributes too.

    Args:
        model: a `taichu.Taichu`.
        data: the test split.
        judges: modality -> judge of the raw grid; the baseline of zero-shot naming.
        centred: modality -> a second judge, that reads the digit centred; reported as ``centred``.
        limit: items a modality.
        sampling: of the media.
    """
    figures = {}
    for modality, judge in judges.items():
        samples, rows = distinct(data, modality)
        subject = "digit" if modality == "audio" else modality
        fits = np.array([data.samples[i].labels["caption"] == subject for i in samples], bool)
        readers = {"": judge} | ({"centred": centred[modality]} if modality in centred else {})
        figures[modality] = _judged(
            model, data, modality, samples[fits], rows[fits], readers, limit, sampling
        )
        if modality == "audio" and not fits.all():
            figures[modality]["whole_caption"] = _judged(
                model, data, modality, samples[~fits], rows[~fits], readers, limit // 2, sampling
            )
    return figures


def _judged(model, data, modality, samples, rows, readers, limit: int, sampling: Sampling) -> dict:
    """The figures of at most ``limit`` of these items; readers beside "" under their own name."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:limit])
    if not len(chosen):
        return {"agreement": None, "ceiling": None, "real": None, "chance": 0.1, "n": 0}
    samples, rows = samples[chosen], rows[chosen]
    digits = np.array([data.samples[i].labels["digit"] for i in samples])
    # the languages in turn
    captions = [data.samples[i].captions(0) for i in samples]
    texts = [of[k % len(of)][1] for k, of in enumerate(captions)]
    made = generate(model, modality, [{TEXT: text} for text in texts], sampling)
    real = np.asarray(data.grids[modality][rows], np.float32)
    grids = {
        "agreement": np.stack([g.grid for g in made]),
        "ceiling": model.decode_codes(modality, model.encode_grids(modality, real)),
        "real": real,
    }
    figures = {"chance": 0.1, "n": len(digits)}
    for name, read in readers.items():
        shares = {key: float((read(grid) == digits).mean()) for key, grid in grids.items()}
        figures |= {name: shares} if name else shares
    return figures
