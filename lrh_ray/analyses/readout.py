"""Linear probes as fitted: weights and intercepts for rows as they stand in the store.

scores = readout.scores(rows)            # [N, K], float64
decisions = scores > readout.threshold
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import log_softmax

from lrh_ray.analyses.layouts import LogPosteriors, ProbeFloats, ProbeInts, ProbeScores, ProbeWeights
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.layouts import Rows


@runtime_checkable
class Readout(Protocol):
    """K binary probes of any kind, fitted. A row is called positive where its score exceeds `threshold`."""

    @property
    def columns(self) -> ProbeInts:
        """The label column of each probe."""

    @property
    def regularisation(self) -> ProbeFloats:
        """What each probe was held back by: a penalty, a shrinkage, a number of steps."""

    @property
    def threshold(self) -> float: ...

    def scores(self, rows: Rows) -> ProbeScores:
        """Rows of any float type to scores [N, K]."""

    def of_probes(self, probes: np.ndarray) -> "Readout":
        """Some of the probes."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What defines the probes, by name; the probe is the first axis wherever there is one."""


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

    def of_probes(self, probes: np.ndarray) -> "LinearReadout":
        """Some of the probes."""
        return LinearReadout(
            weights=self.weights[:, probes],
            intercepts=self.intercepts[probes],
            columns=self.columns[probes],
            regularisation=self.regularisation[probes],
            threshold=self.threshold,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights [K, D], intercepts and penalties [K]."""
        weights = np.ascontiguousarray(self.weights.T)
        return {"weights": weights, "intercepts": self.intercepts, "regularisation": self.regularisation}


def joined(readouts: Sequence[LinearReadout]) -> LinearReadout:
    """The probes of several readouts of one kind, one after the other."""
    return LinearReadout(
        weights=np.concatenate([readout.weights for readout in readouts], axis=1),
        intercepts=np.concatenate([readout.intercepts for readout in readouts]),
        columns=np.concatenate([readout.columns for readout in readouts]),
        regularisation=np.concatenate([readout.regularisation for readout in readouts]),
        threshold=readouts[0].threshold,
    )


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
