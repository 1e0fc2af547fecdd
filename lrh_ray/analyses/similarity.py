"""How alike two representations of the same rows are: canonical correlations, CKA, Procrustes, MCC.

Each is a number of the joint covariance, exact for a corpus of any size:

| measure | invariant under | 1 means |
|---|---|---|
| canonical correlations (CCA; SVCCA, PWCCA) | invertible linear maps of each side | one is a linear map of the other |
| linear CKA | rotations and one scale of each side | equal up to rotation and scale |
| 1 - Procrustes disparity | rotations and one scale of each side | equal up to rotation and scale |
| MCC | permutations, signs and scales of single features | the same features in another order |

    canonical(joint).correlations                       # [min(P, Q)], descending
    cka(joint), unbiased_cka(joint), procrustes(joint).disparity, mcc(joint).mean

What can go wrong: CCA of as many features as rows is 1 for noise; CKA of few rows is far above 0 for noise too, which
`unbiased_cka` corrects (its expectation for independent sides is 0, so it can be negative). All describe the rows they
are given: compare with shuffled rows, which keep each side's own spectrum.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.layouts import Indices, OtherWeights, Square, Values, Weights
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.errors import ConfigError, NotEnoughData


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Canonical:
    """Canonical correlations, descending, and the directions of x [P, k] and y [Q, k] that reach them.

    Projections of centred rows on a direction have variance 1.
    """

    correlations: Values
    x: Weights
    y: OtherWeights


def canonical(joint: Joint, *, keep: float = 1.0) -> Canonical:
    """CCA; with `keep` < 1 SVCCA: each side is first reduced to the leading directions with that share of its variance.

    Directions at the level of rounding are left out on either side. O((P + Q)^3). Hotelling 1936; Raghu et al. 2017.

    Raises:
        ConfigError: `keep` outside (0, 1].
        NotEnoughData: A side does not vary.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep is {keep!r}; it is the share of variance that stays, above 0 and at most 1.")
    left, right = _whitening(joint.xx, keep), _whitening(joint.yy, keep)
    u, correlations, vt = scipy.linalg.svd(left.T @ joint.xy @ right, full_matrices=False)
    return Canonical(correlations=np.clip(correlations, 0.0, 1.0), x=left @ u, y=right @ vt.T)


def _whitening(covariance: np.ndarray, keep: float) -> np.ndarray:
    """[P, r] maps centred rows to uncorrelated ones of variance 1, on the directions that are kept."""
    spectrum = Spectrum.of(covariance)
    values, vectors = spectrum.values[::-1], spectrum.vectors[:, ::-1]
    _require_variance(float(values[0]))
    share = np.cumsum(values) / values.sum()
    rank = int(np.count_nonzero(values))
    kept = rank if keep == 1 else min(rank, int(np.searchsorted(share, keep - 1e-12)) + 1)
    return np.asarray(vectors[:, :kept] / np.sqrt(values[:kept]))


def pwcca(joint: Joint) -> float:
    """Mean canonical correlation, each weighted by how much of x its direction accounts for (Morcos et al. 2018)."""
    found = canonical(joint)
    weights = np.abs(joint.xx @ found.x).sum(axis=0)
    return float(weights @ found.correlations / weights.sum())


def cka(joint: Joint) -> float:
    """Linear CKA |cov(x, y)|_F^2 / (|cov(x)|_F |cov(y)|_F) (Kornblith et al. 2019); biased upwards for few rows."""
    xx, xy, yy = (float(np.linalg.norm(part)) for part in (joint.xx, joint.xy, joint.yy))
    _require_variance(xx, yy)
    return xy**2 / (xx * yy)


def unbiased_cka(joint: Joint) -> float:
    """Linear CKA from unbiased estimates of HSIC (Song et al. 2012, eq. 5): about 0 for independent sides.

    Raises:
        NotEnoughData: Fewer than 4 rows.
    """
    if joint.count < 4:
        raise NotEnoughData(f"An unbiased CKA needs at least 4 rows; there are {joint.count:.0f}.")
    own = _hsic(joint, "x", "x"), _hsic(joint, "y", "y")
    _require_variance(*own)
    return _hsic(joint, "x", "y") / math.sqrt(own[0] * own[1])


def _hsic(joint: Joint, first: str, second: str) -> float:
    """Unbiased HSIC of linear kernels without their diagonals, from sums over rows.

    With kernels K = x x^T and L = y y^T of which the diagonals are set to 0:
    [tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)] / (n (n - 3)).
    """
    n, gram, num = joint.count, joint.gram, len(joint.shift)
    part = {"x": slice(0, joint.num_x), "y": slice(joint.num_x, num)}
    norm = {"x": num, "y": num + 1}
    a, b, i, j = part[first], part[second], norm[first], norm[second]
    sum_a, sum_b = gram[-1, a], gram[-1, b]
    trace = np.sum(gram[a, b] ** 2) - gram[i, j]
    ones_a, ones_b = sum_a @ sum_a - gram[-1, i], sum_b @ sum_b - gram[-1, j]
    mixed = sum_a @ gram[a, b] @ sum_b - sum_a @ gram[a, j] - sum_b @ gram[b, i] + gram[i, j]
    return float((trace + ones_a * ones_b / ((n - 1) * (n - 2)) - 2 * mixed / (n - 2)) / (n * (n - 3)))


def _require_variance(*sides: float) -> None:
    if min(sides) <= 0:
        raise NotEnoughData("One side does not vary over these rows, so nothing can be compared with it.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Procrustes:
    """The rotation R [P, Q] (orthonormal columns or rows) for which |y - s x R| over centred rows is least.

    `disparity` is that least sum of squares where both sides are scaled to 1, SciPy's `procrustes`: 0 to 1.
    """

    rotation: Weights
    scale: float
    disparity: float


def procrustes(joint: Joint) -> Procrustes:
    """Orthogonal Procrustes from the singular values of cov(x, y) (Schoenemann 1966). O(P Q min(P, Q))."""
    u, values, vt = scipy.linalg.svd(joint.xy, full_matrices=False)
    total_x, total_y, nuclear = np.trace(joint.xx), np.trace(joint.yy), values.sum()
    _require_variance(total_x, total_y)
    return Procrustes(
        rotation=u @ vt, scale=float(nuclear / total_x), disparity=float(1 - nuclear**2 / (total_x * total_y))
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Matched:
    """Features of x and y paired one to one so that their absolute correlations are largest in all."""

    x: Indices
    y: Indices
    correlations: Values
    """Signed, in the order of `x`."""

    @property
    def mean(self) -> float:
        """The mean correlation coefficient, MCC: 1 where one side is the other up to order, signs and scales."""
        return float(np.abs(self.correlations).mean())


def mcc(joint: Joint) -> Matched:
    """Match features by the Hungarian method on absolute Pearson correlations; min(P, Q) pairs.

    A feature that does not vary correlates 0 with everything.
    """
    correlations = correlation_matrix(joint)
    x, y = linear_sum_assignment(-np.abs(correlations))
    return Matched(x=x, y=y, correlations=correlations[x, y])


def weak_mcc(joint: Joint) -> Matched:
    """MCC up to linear maps: of the canonical variates instead of the features."""
    found = canonical(joint)
    k = np.arange(len(found.correlations))
    return Matched(x=k, y=k, correlations=found.correlations)


def correlation_matrix(joint: Joint) -> np.ndarray:
    """Pearson correlations [P, Q] of every feature of x with every one of y."""
    scale = np.sqrt(np.outer(np.diag(joint.xx), np.diag(joint.yy)))
    return ratio(joint.xy, scale, otherwise=0.0)


def effective_rank(covariance: Square) -> float:
    """D for isotropic rows, 1 for a line: exp of the entropy of the eigenvalues' shares (Roy & Vetterli 2007)."""
    values = Spectrum.of(covariance).values
    _require_variance(float(values[-1]))
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def subspace_angles(first: Weights, second: Weights) -> Values:
    """Principal angles in radians, descending, between the spans of the columns of two matrices (Bjorck & Golub)."""
    return np.asarray(scipy.linalg.subspace_angles(first, second))
