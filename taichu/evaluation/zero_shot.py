"""Naming the digit by text embeddings in held-out templates, with nothing trained for it."""

from itertools import product

import numpy as np

from taichu.data.digits.captions import ATTRIBUTES, TEST_TEMPLATES, VALUES, fill
from taichu.vocabulary import TEXT


def zero_shot(embeddings, baselines) -> dict[str, dict]:
    """Accuracy in English and Chinese, chance, and the logistic regression's on the same items.

    A class is the mean of its prompts (CLIP 2103.00020, section 3.1.4): all held-out templates of
    the modality, filled with all values of its attributes.
    """
    figures = {}
    for modality, baseline in baselines.items():
        vectors, digits = embeddings.vectors[modality], embeddings.digits[modality]
        accuracy = {
            language: float(
                (class_of(embeddings.model, modality, language, vectors) == digits).mean()
            )
            for language in TEST_TEMPLATES
        }
        rows = embeddings.data.rows[modality][embeddings.samples[modality]]
        named = baseline(embeddings.data.grids[modality][rows])
        figures[modality] = {
            "accuracy": float(np.mean(list(accuracy.values()))),
            **accuracy,
            "baseline": float((named == digits).mean()),
            "chance": 0.1,
            "n": len(digits),
        }
    return figures


def class_of(model, modality: str, language: str, vectors: np.ndarray) -> np.ndarray:
    """The digit whose prompts, captions of a modality's, are nearest to each vector, (n,)."""
    texts = [prompts(modality, language, digit) for digit in range(10)]
    flat = model.embed_many([{TEXT: text} for row in texts for text in row])
    means = flat.reshape(10, len(texts[0]), -1).mean(1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.argmax(vectors @ means.T, 1)


def prompts(modality: str, language: str, digit: int) -> list[str]:
    """Held-out captions of a digit: of the digit alone, and with each combination of attributes."""
    subjects = ["digit"] if modality not in ATTRIBUTES else ["digit", modality]
    return [
        fill({"digit": digit, **dict(zip(ATTRIBUTES[subject], values))}, language, template)
        for subject in subjects
        for template in TEST_TEMPLATES[language][subject]
        for values in product(*(VALUES[name] for name in ATTRIBUTES[subject]))
    ]
