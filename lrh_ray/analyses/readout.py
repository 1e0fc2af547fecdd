"""Linear probes as fitted: weights and intercepts for rows as they stand in the store.

scores = readout.scores(rows)            # [N, K], float64
decisions = scores > readout.threshold
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from lrh_ray.analyses.layouts import LogPosteriors, ProbeFloats, ProbeInts, ProbeScores, ProbeWeights
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.layouts import Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearReadout:
    """K binary probes. A row is called positive where its score exceeds `threshold`.

    `columns` is the label column of each probe, `regularisation` its absolute penalty (ridge, logistic) or shrinkage
    (LDA). Scores are log-odds in nats with threshold 0 (logistic, LDA) or estimates of a 0/1 label with threshold 0.5
    (ridge).
    """

    weights: ProbeWeights
    intercepts: ProbeFloats
    columns: ProbeInts
    regularisation: ProbeFloats
    threshold: float

    def scores(self, rows: Rows) -> ProbeScores:
        """Rows of any float type to scores [N, K], accumulated in float64."""
        return _affine(rows, self.weights, self.intercepts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MulticlassReadout:
    """One probe with a discriminant per class; `columns` is the label column that stands for each class."""

    weights: ProbeWeights
    intercepts: ProbeFloats
    columns: ProbeInts

    def log_posteriors(self, rows: Rows) -> LogPosteriors:
        """Log probabilities of the classes in nats [N, m]; each row of exp(...) sums to 1."""
        return np.asarray(log_softmax(_affine(rows, self.weights, self.intercepts), axis=1))


def _affine(rows: Rows, weights: ProbeWeights, intercepts: ProbeFloats) -> ProbeScores:
    scores = np.empty((len(rows), weights.shape[1]))
    for tile in tile_slices(len(rows)):
        np.matmul(rows[tile].astype(np.float64), weights, out=scores[tile])
    scores += intercepts
    return scores
