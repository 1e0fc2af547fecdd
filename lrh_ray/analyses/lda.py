"""Linear discriminant analysis: classes as Gaussians with one covariance, in closed form from the moments.

    S  = (1 - shrinkage) W + shrinkage tr(W)/D I           W: pooled within-class covariance, divided by n
    log p(class k | x) = x . S^-1 m_k - m_k . S^-1 m_k / 2 + log rate_k + constant

W is the population's covariance less the spread of the class means, a matrix of rank (classes - 1). By the Woodbury
identity the population's one eigendecomposition therefore serves every concept, and no concept needs a Gram of its
own. The same estimator as scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)`, which also
divides by n; multi-class discriminants differ from its `coef_` by a vector common to all classes, because the means
here are taken relative to the overall mean; posteriors are equal.

    readout = fit_lda(moments, shrinkage=0.1)                       # every column as two classes
    readout = fit_multiclass_lda(moments, [3, 4, 5], shrinkage=0.1)  # one concept of three values

What can go wrong: without shrinkage, fewer rows than features (or a perfectly separated concept) leave W singular.
"""

from collections.abc import Sequence

import numpy as np

from lrh_ray.analyses.moments import Moments, require_two_classes, shared_population
from lrh_ray.analyses.readout import LinearReadout, MulticlassReadout
from lrh_ray.errors import ConfigError, NotEnoughData


def fit_lda(moments: Moments, shrinkage: float, names: Sequence[str] = ()) -> LinearReadout:
    """One two-class probe per label column, K = C; scores are log-odds in nats.

    Raises:
        NotEnoughData: a column has one class, or its within-class covariance is singular.
        ConfigError: shrinkage outside [0, 1].
    """
    _require_fraction(shrinkage)
    require_two_classes(moments, names)
    rate, D = moments.rate, len(moments.shift)
    spread = rate * (1 - rate)
    difference_DC = moments.cross_covariance / spread
    total_variance = np.trace(moments.covariance, axis1=1, axis2=2)[moments.populations]
    within_variance = (total_variance - spread * (difference_DC**2).sum(axis=0)) / D
    solved_DC = np.empty_like(difference_DC)
    for p, spectrum in enumerate(moments.spectra):
        own = moments.populations == p
        keep = np.full(own.sum(), 1.0 - shrinkage)
        solved_DC[:, own] = spectrum.solve(difference_DC[:, own], keep, shrinkage * within_variance[own])
    remaining = 1 - (1 - shrinkage) * spread * (difference_DC * solved_DC).sum(axis=0)
    _require_regular(remaining, D)
    weights = solved_DC / remaining
    midpoint_CD = moments.mean[moments.populations] + ((0.5 - rate) * difference_DC).T
    return LinearReadout(
        weights=weights,
        intercepts=np.log(rate / (1 - rate)) - np.einsum("cd,dc->c", midpoint_CD, weights),
        columns=np.arange(len(rate)),
        regularisation=np.full(len(rate), shrinkage),
        threshold=0.0,
    )


def fit_multiclass_lda(moments: Moments, columns: Sequence[int], shrinkage: float) -> MulticlassReadout:
    """One model over classes given as one-vs-rest columns, exactly one of which is 1 in every row of their population.

    Raises:
        NotEnoughData: a class has no rows, or the within-class covariance is singular.
        ConfigError: shrinkage outside [0, 1].
        ValueError: the columns do not partition one population.
    """
    _require_fraction(shrinkage)
    group = np.asarray(columns, dtype=np.int64)
    p = shared_population(moments, group)
    rate, D = moments.rate[group], len(moments.shift)
    centred_DM = moments.positive_offset[:, group] - moments.offset[p][:, None]
    spread_DM = np.sqrt(rate) * centred_DM
    within_variance = (np.trace(moments.covariance[p]) - (spread_DM**2).sum()) / D
    each = np.ones(len(group))
    solved_DM = moments.spectra[p].solve(spread_DM, (1 - shrinkage) * each, shrinkage * within_variance * each)
    remaining_MM = np.eye(len(group)) - (1 - shrinkage) * spread_DM.T @ solved_DM
    _require_regular(np.linalg.eigvalsh((remaining_MM + remaining_MM.T) / 2), D)
    weights = np.linalg.solve(remaining_MM.T, solved_DM.T).T / np.sqrt(rate)
    reference = moments.mean[p] @ weights + (centred_DM * weights).sum(axis=0) / 2
    return MulticlassReadout(weights=weights, intercepts=np.log(rate) - reference, columns=group)


def _require_fraction(shrinkage: float) -> None:
    if not 0 <= shrinkage <= 1:
        raise ConfigError(f"LDA shrinkage is {shrinkage!r}; it must lie in [0, 1].")


def _require_regular(remaining: np.ndarray, num_features: int) -> None:
    """The within share of the variance along the discriminants must exceed rounding, else S has no inverse."""
    if (remaining <= 10 * num_features * np.finfo(np.float64).eps).any():
        raise NotEnoughData(
            "The within-class covariance is singular: the classes are separated perfectly, or there are fewer rows "
            "than features. Use a shrinkage above 0 (0.1, say), or more documents."
        )
