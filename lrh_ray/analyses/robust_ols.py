"""Intervals for least squares when rows come in clusters: coefficients and R^2, robust to dependence inside documents.

Rows of one document resemble one another, in x and in what x leaves unexplained. The textbook standard error counts
every row as an observation and is too small, often by a factor of several. The sandwich adds up what each cluster g
contributes to the gradient and lets its rows depend on one another in any way (Liang & Zeger 1986; CR1):

    cov(B) = c A^-1 [sum_g s_g s_g^T] A^-1     s_g = X_g^T e_g,  A = X^T X,  c = G/(G - 1) * (n - 1)/(n - k)

with k coefficients, the intercept included. Residuals are known once B is, so this is a second pass, of sums again:

    joint = moments.joint(); fitted = fit_linear(joint)                                         # first pass
    state = merge_tree(ScoreState.of(x, y, joint=joint, fitted=fitted, groups=..., num_groups=G) for blocks)
    inference = robust_inference(joint, fitted, state)
    inference.standard_errors, inference.low, inference.high                                    # [P, Q]
    inference.r_squared, inference.r_squared_low, inference.r_squared_high                      # [Q]

R^2 = 1 - sum e^2 / sum (y - mean)^2 is a ratio of two means, and B, which minimises the numerator, adds nothing to its
first-order error. So its standard error comes from the same cluster sums, by the delta method on log(1 - R^2), which
keeps the interval below 1.

What can go wrong: fewer than about 40 clusters, or a few that hold most rows, and the intervals are too narrow even
with the t distribution of G - 1 degrees of freedom that is used. A cluster may be several documents: coarser ones stay
valid and keep the state small, G (P + 1) Q numbers. R^2 on the rows of the fit grows with P whatever x is, by about P/n
per target; the interval is that of this R^2, not of the one on other rows (`linear_map.r_squared`). Near R^2 = 0 the
delta method's interval is not exact.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.layouts import GroupFloats, GroupIndex, GroupScores, GroupTargets, Targets, Weights
from lrh_ray.analyses.linear_map import LinearMap
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.errors import ConfigError, NotEnoughData
from lrh_ray.layouts import Gram64, Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScoreState:
    """Mergeable sums of every group, float64, about the means and residuals e of one fit.

    `scores` [G, P + 1, Q] is the sum of [x - mean, 1] e^T, `residuals` [G, Q] that of e^2, `targets` [G, Q] that of
    (y - mean)^2, `rows` [G] the number of rows.
    """

    scores: GroupScores
    residuals: GroupTargets
    targets: GroupTargets
    rows: GroupFloats

    @classmethod
    def of(
        cls, x: Rows, y: np.ndarray, *, joint: Joint, fitted: LinearMap, groups: GroupIndex, num_groups: int
    ) -> "ScoreState":
        """Summarise one block: x [N, P] and y [N, Q] of any float types, groups [N] below `num_groups`. 4 N P Q FLOP.

        Raises:
            ValueError: x, y and groups differ in rows.
        """
        if not len(x) == len(y) == len(groups):
            raise ValueError(f"scores of {x.shape} and {y.shape} rows with {len(groups)} groups")
        P, Q = fitted.weights.shape
        scores, rows = np.zeros((num_groups, P + 1, Q)), np.zeros(num_groups)
        residuals, targets = np.zeros((num_groups, Q)), np.zeros((num_groups, Q))
        bias = fitted.intercepts + joint.mean_x @ fitted.weights - joint.mean_y
        for tile in tile_slices(len(x)):
            x_NP, y_NQ = x[tile].astype(np.float64) - joint.mean_x, y[tile].astype(np.float64) - joint.mean_y
            e_NQ = y_NQ - x_NP @ fitted.weights - bias
            for group in np.unique(groups[tile]).tolist():
                own = groups[tile] == group
                scores[group, :-1] += x_NP[own].T @ e_NQ[own]
                scores[group, -1] += e_NQ[own].sum(axis=0)
                residuals[group] += (e_NQ[own] ** 2).sum(axis=0)
                targets[group] += (y_NQ[own] ** 2).sum(axis=0)
                rows[group] += own.sum()
        return cls(scores=scores, residuals=residuals, targets=targets, rows=rows)

    def merge(self, other: "ScoreState") -> "ScoreState":
        return ScoreState(
            scores=self.scores + other.scores,
            residuals=self.residuals + other.residuals,
            targets=self.targets + other.targets,
            rows=self.rows + other.rows,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RobustInference:
    """Standard errors and intervals of the weights [P, Q], the intercepts [Q] and R^2 [Q].

    `influence` [G, P + 1, Q] holds what each group moves the weights and the intercept: covariances are its products.
    R^2 and its ends are NaN for a target without variance. `num_groups` counts groups with rows.
    """

    standard_errors: Weights
    low: Weights
    high: Weights
    intercept_errors: Targets
    r_squared: Targets
    r_squared_low: Targets
    r_squared_high: Targets
    influence: GroupScores
    num_groups: int

    def covariance(self, target: int) -> Gram64:
        """Covariance [P + 1, P + 1] of one target's weights and its intercept, which is last."""
        return np.asarray(self.influence[:, :, target].T @ self.influence[:, :, target])


def robust_inference(joint: Joint, fitted: LinearMap, state: ScoreState, level: float = 0.95) -> RobustInference:
    """Intervals of a least-squares fit from its cluster sums. O(P^3) and 2 G P^2 Q FLOP.

    Raises:
        NotEnoughData: fewer than 2 clusters, no more rows than coefficients, or linearly dependent features, whose
            coefficients are not determined.
        ConfigError: a level outside (0, 1), or a fit with a penalty, whose coefficients are biased.
    """
    _require(joint, fitted, state, level)
    spectrum = Spectrum.of(joint.xx)
    _require_rank(spectrum, joint)
    n, G, k = joint.count, int((state.rows > 0).sum()), len(fitted.weights) + 1
    factor = np.sqrt(G / (G - 1) * (n - 1) / (n - k))
    influence = factor * _moves(joint, spectrum, state)
    errors = np.sqrt((influence**2).sum(axis=0))
    reach = float(stdtrit(G - 1, (1 + level) / 2))
    remaining, spread = _remaining(state, G)
    return RobustInference(
        standard_errors=errors[:-1],
        low=fitted.weights - reach * errors[:-1],
        high=fitted.weights + reach * errors[:-1],
        intercept_errors=errors[-1],
        r_squared=1 - remaining,
        r_squared_low=1 - remaining * np.exp(reach * spread),
        r_squared_high=1 - remaining * np.exp(-reach * spread),
        influence=influence,
        num_groups=G,
    )


def _moves(joint: Joint, spectrum: Spectrum, state: ScoreState) -> np.ndarray:
    """A^-1 s_g [G, P + 1, Q] for weights and the intercept at x = 0; about the means, A is n times a block matrix."""
    G, k, Q = state.scores.shape
    moves = state.scores / joint.count
    slopes = np.moveaxis(moves[:, :-1], 1, 0).reshape(k - 1, G * Q)
    ones = np.ones(G * Q)
    solved = spectrum.solve(slopes, ones, 0 * ones)
    moves[:, :-1] = np.moveaxis(solved.reshape(k - 1, G, Q), 0, 1)
    moves[:, -1] -= np.einsum("p,gpq->gq", joint.mean_x, moves[:, :-1])
    return np.asarray(moves)


def _remaining(state: ScoreState, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """1 - R^2 [Q], and the standard error of its logarithm [Q]."""
    error, variance = state.residuals.sum(axis=0), state.targets.sum(axis=0)
    share = state.residuals * ratio(1.0, error, otherwise=np.nan) - state.targets * ratio(1.0, variance, np.nan)
    correction = num_groups / (num_groups - 1)
    return ratio(error, variance, otherwise=np.nan), np.sqrt(correction * (share**2).sum(axis=0))


def _require(joint: Joint, fitted: LinearMap, state: ScoreState, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"The level of an interval is {level!r}; it must lie between 0 and 1, 0.95 say.")
    if fitted.penalty != 0:
        raise ConfigError(
            f"The fit has a penalty of {fitted.penalty!r}, which biases its coefficients by more than any standard "
            "error says; fit with penalty 0."
        )
    if state.rows.sum() != joint.count:
        raise ValueError(f"Scores of {state.rows.sum():.0f} rows do not belong to a fit on {joint.count:.0f} rows.")
    if (state.rows > 0).sum() < 2:
        raise NotEnoughData(
            f"{(state.rows > 0).sum()} clusters have rows; a variance between clusters needs at least 2, better 40."
        )


def _require_rank(spectrum: Spectrum, joint: Joint) -> None:
    rank, P = int((spectrum.values > 0).sum()), len(spectrum.values)
    if rank < P or joint.count <= P + 1:
        raise NotEnoughData(
            f"{P} features have rank {rank} on {joint.count:.0f} rows, so their coefficients are not determined; drop "
            "dependent features (or project on principal components), or use more documents."
        )
