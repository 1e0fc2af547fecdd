"""Ridge probes: least squares on 0/1 labels, in closed form from the moments.

    min over w, b of  (1/n) sum_i (y_i - w . x_i - b)^2 + penalty |w|^2      (the intercept b is free)
    w = (C + penalty I)^-1 cov(x, y),   b = rate - w . mean

with C the covariance of the column's population. One eigendecomposition per population serves every column and penalty,
and no row is read again. scikit-learn's `Ridge` minimises n times this with alpha = n * penalty.

    readout = fit_ridge(moments, absolute_penalties(moments, [1e-4, 1e-2]))

What can go wrong: scores estimate a 0/1 label but are not probabilities; log-loss is undefined for them.
"""

import numpy as np

from lrh_ray.analyses.layouts import Penalties
from lrh_ray.analyses.moments import Moments
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.errors import ConfigError


def fit_ridge(moments: Moments, penalties: Penalties) -> LinearReadout:
    """Probes for every column and penalty, K = C * L; probe j is column j // L with penalty j % L.

    A penalty of 0 gives ordinary least squares, of least norm where the covariance is singular. Costs 4 D^2 K FLOP.

    Raises:
        ConfigError: a penalty is negative or not finite.
    """
    if not (np.isfinite(penalties) & (penalties >= 0)).all():
        raise ConfigError(f"Ridge penalties are {penalties.tolist()!r}; each must be a finite number of at least 0.")
    L = penalties.shape[1]
    columns = np.repeat(np.arange(len(moments.populations)), L)
    populations = moments.populations[columns]
    cross_DK = moments.cross_covariance[:, columns]
    weights = np.empty_like(cross_DK)
    for p, spectrum in enumerate(moments.spectra):
        own = populations == p
        weights[:, own] = spectrum.solve(cross_DK[:, own], np.ones(own.sum()), penalties.ravel()[own])
    fitted_mean = np.einsum("kd,dk->k", moments.mean[populations], weights)
    return LinearReadout(
        weights=weights,
        intercepts=moments.rate[columns] - fitted_mean,
        columns=columns,
        regularisation=penalties.ravel(),
        threshold=0.5,
    )
