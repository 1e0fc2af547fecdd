"""Small data sets with known structure, shared by the tests of the analyses."""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.moments import LabelledMoments, Moments


@dataclass(frozen=True, kw_only=True)
class Example:
    """Rows with labels in two populations: everything, and only some documents."""

    rows: np.ndarray
    labels: np.ndarray
    populations: np.ndarray
    members: np.ndarray

    @property
    def shift(self) -> np.ndarray:
        return self.rows[:16].astype(np.float64).mean(axis=0)

    def state(self, part: slice | np.ndarray = slice(None), shift: np.ndarray | None = None) -> LabelledMoments:
        shift = self.shift if shift is None else shift
        return LabelledMoments.of(self.rows[part], shift, self.labels[part], self.members[part], self.populations)

    @property
    def moments(self) -> Moments:
        return self.state().finalize()

    def of_column(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and labels of one column inside its population: what an oracle is given."""
        inside = self.members[:, self.populations[c]]
        return self.rows[inside].astype(np.float64), self.labels[inside, c]


def make_example(num_rows: int, num_features: int, seed: int, scales: np.ndarray | None = None) -> Example:
    """Columns 0, 1 on all rows; 2, 3, 4 are the classes of one concept that about 70 % of the rows carry."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(num_features, num_features)))[0]
    scales = np.geomspace(0.3, 3, num_features) if scales is None else scales
    latent = rng.normal(size=(num_rows, num_features))
    signal = latent @ rng.normal(size=(num_features, 5)) / np.sqrt(num_features)
    noisy = signal + rng.logistic(size=signal.shape) * 0.5
    classes = noisy[:, 2:].argmax(axis=1)
    labels = np.c_[noisy[:, :2] > [0.0, 1.0], classes[:, None] == np.arange(3)].astype(np.float64)
    members = np.c_[np.ones(num_rows, dtype=bool), rng.random(num_rows) < 0.7]
    rows = (latent * scales) @ mixing.T + rng.normal(size=num_features)
    return Example(rows=rows, labels=labels, populations=np.array([0, 0, 1, 1, 1]), members=members)
