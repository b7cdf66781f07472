"""The independent judge: a plain logistic regression that names the digit in a grid."""

import numpy as np

from taichu.data.digits.render import centre_digit

COMPONENTS = 160  # principal components the regression sees; all of them take minutes
MOST = 4000  # training items


class Judge:
    """Logistic regression on principal components.

    Args:
        grids: (n, T, Y, X, C). digits: (n,).
        centred: read the digit cut out and centred, instead of the raw grid: on frames in which a
            digit moves, the regression reads next to nothing.
    """

    def __init__(self, grids: np.ndarray, digits: np.ndarray, centred: bool):
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        self.centred = centred
        rows = self._rows(grids)
        self.pipeline = make_pipeline(
            PCA(min(COMPONENTS, *rows.shape), svd_solver="randomized", random_state=0),
            LogisticRegression(C=0.3 if centred else 0.03, max_iter=200),
        )
        self.pipeline.fit(rows, digits)

    def __call__(self, grids: np.ndarray) -> np.ndarray:
        """The digit in each grid, (n,)."""
        return self.pipeline.predict(self._rows(grids))

    def _rows(self, grids: np.ndarray) -> np.ndarray:
        if self.centred:
            return np.stack([centre_digit(np.asarray(grid)).ravel() for grid in grids])
        return np.asarray(grids, np.float32).reshape(len(grids), -1)


def train_judges(model, train) -> tuple[dict[str, Judge], dict[str, Judge]]:
    """From real training data, for each grid modality, the judge that is both the baseline of what
    is recognised and the reader of what is generated; and centred judges beside.

    Video is read centred only. Of images there is a second judge that reads the digit centred,
    since in the raw grid its place blurs it: its figures are higher, and stand apart.
    """
    judges, centred = {}, {}
    for modality in model.adapters:
        samples, rows = distinct(train, modality)
        digits = np.array([train.samples[i].labels["digit"] for i in samples])
        chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
        real = train.grids[modality][rows[chosen]], digits[chosen]
        judges[modality] = Judge(*real, centred=modality == "video")
        if modality == "image":
            centred[modality] = Judge(*real, centred=True)
    return judges, centred


def distinct(data, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples holding the modality, each file once: (samples, rows of the grids)."""
    files, samples = set(), []
    for i in data.having([modality]):
        path = data.samples[i].media[modality]
        if path not in files:
            files.add(path)
            samples.append(i)
    samples = np.array(samples, int)
    return samples, data.rows[modality][samples]
