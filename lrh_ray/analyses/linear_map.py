"""Linear maps between representations: least squares and ridge from joint moments, and how much they explain.

    min over B, b of (1/n) sum_i |y_i - B^T x_i - b|^2 + penalty |B|^2        (the intercept b is free)

One eigendecomposition of cov(x) serves every penalty and target. The held-out error is exact as well: with the moments
of the held-out rows it is a quadratic form in B, so no row is read again.

    fitted = fit_linear(moments.without(fold), penalty=1e-6)
    r_squared(fitted, moments.only(fold)).total

What can go wrong: with penalty 0 and a singular covariance the map of least norm is taken. R^2 on the rows of the fit
grows with the number of features whatever they are; only the held-out one says something.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.layouts import Targets, Weights
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Feature64, Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearMap:
    """y = weights^T x + intercepts, for rows as they stand in the store."""

    weights: Weights
    intercepts: Targets
    penalty: float

    def __call__(self, rows: Rows) -> np.ndarray:
        """Predictions [N, Q], float64."""
        return np.asarray(rows.astype(np.float64) @ self.weights + self.intercepts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explained:
    """R^2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2: of each target [Q], and of all (variance-weighted).

    NaN where nothing varies.
    """

    targets: Targets
    total: float


def fit_linear(joint: Joint, penalty: float = 0.0) -> LinearMap:
    """The map of x to y; scikit-learn's `Ridge` with alpha = n * penalty, or `LinearRegression`. O(P^3).

    Raises:
        ConfigError: A negative penalty.
    """
    return fit_path(joint, (penalty,))[0]


def fit_path(joint: Joint, penalties: tuple[float, ...]) -> tuple[LinearMap, ...]:
    """A map for every penalty, from one eigendecomposition."""
    if not all(np.isfinite(penalty) and penalty >= 0 for penalty in penalties):
        raise ConfigError(f"Ridge penalties are {penalties!r}; each must be a finite number of at least 0.")
    spectrum, cross, ones = Spectrum.of(joint.xx), joint.xy, np.ones(len(joint.mean_y))
    return tuple(_map(joint, spectrum.solve(cross, ones, penalty * ones), penalty) for penalty in penalties)


def _map(joint: Joint, weights: np.ndarray, penalty: float) -> LinearMap:
    return LinearMap(weights=weights, intercepts=joint.mean_y - joint.mean_x @ weights, penalty=penalty)


def r_squared(fitted: LinearMap, joint: Joint) -> Explained:
    """What a map explains of the rows of `joint`, which may be others than it was fitted on."""
    B = fitted.weights
    bias = fitted.intercepts + joint.mean_x @ B - joint.mean_y
    left = np.einsum("pq,pq->q", B, joint.xx @ B) - 2 * np.einsum("pq,pq->q", B, joint.xy)
    variance = np.diag(joint.yy)
    error = left + variance + bias**2
    total = ratio(error.sum(), np.asarray(variance.sum()), otherwise=np.nan)
    return Explained(targets=1 - ratio(error, variance, otherwise=np.nan), total=float(1 - total))


def mean_difference(joint: Joint) -> Feature64:
    """mean(x | y = 1) - mean(x | y = 0) for one 0/1 target: cov(x, y) / var(y)."""
    return np.asarray(joint.xy[:, 0] / joint.yy[0, 0])
