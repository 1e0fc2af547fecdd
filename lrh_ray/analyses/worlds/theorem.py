"""Theorem 3.1 of "I Predict Therefore I Am", held against exact worlds.

For any two next tokens y and z and any context x (Liu et al., arXiv 2503.08980, appendix C):

    log p(y|x) / p(z|x) = [p(c|y) - p(c|z)] . log p(c|x)  -  (h_y - h_z)  +  b_y - b_z
    h_y(x) = sum_c p(c|y) log p(c|x, y)          b_y = sum_c p(c|y) log p(y|c)

The left side is what a perfect model's logits are. The first term is linear in the log-posterior of the concepts, b is
a constant, and h depends on the context: where it varies, the claim "features are a linear map of log-posteriors" is
wrong by that much. `identity_error` checks the identity, which is exact; `regime` says how much of the left side is
linear in a given world, which is the question.

Two facts that the paper's wording hides, and that the tests show. The matrix L of the differences p(c|y) - p(c|z) is
never invertible: its columns sum to 0, so its rank is at most C - 1 (`diversity`). And h does not vanish because the
context is informative, only where the next token tells the concepts.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.linear_map import fit_linear, r_squared
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The parts of log p(y|x) - log p(y_0|x) for all contexts and next tokens but the first, each [N, Y - 1]."""

    ratio: np.ndarray
    linear: np.ndarray
    residual: np.ndarray
    """h_y - h_{y_0}."""
    constant: np.ndarray
    """b_y - b_{y_0}, [Y - 1]."""


def terms(world: TokenWorld, contexts: np.ndarray) -> Terms:
    """Both sides of the identity, each from its own definition. Memory N * Y * C."""
    posterior, predictive = world.log_posterior(contexts), world.log_predictive(contexts)
    weights = world.next_posterior
    both = posterior[:, None, :] + world.log_next.T[None] - predictive[:, :, None]  # log p(c | x, y)
    h = np.einsum("yc,nyc->ny", weights, both)
    b = np.einsum("yc,cy->y", weights, world.log_next)
    return Terms(
        ratio=predictive[:, 1:] - predictive[:, :1],
        linear=posterior @ (weights[1:] - weights[0]).T,
        residual=h[:, 1:] - h[:, :1],
        constant=b[1:] - b[0],
    )


def identity_error(world: TokenWorld) -> float:
    """Largest difference of the two sides, in nats, over every context and next token."""
    found = terms(world, world.contexts)
    return float(np.abs(found.ratio - (found.linear - found.residual + found.constant)).max())


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """The matrix of p(c | y) - p(c | y_0): its rank, and the largest sum of a column, which is 0 but for rounding."""

    rank: int
    largest_sum: float


def diversity(world: TokenWorld) -> Diversity:
    """Is every contrast of concepts told by some next token? Rank C - 1 is the most there is."""
    differences = world.next_posterior[1:] - world.next_posterior[0]
    return Diversity(
        rank=int(np.linalg.matrix_rank(differences, tol=1e-10)),
        largest_sum=float(np.abs(differences.sum(axis=1)).max()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Regime:
    """Where in the theorem's assumptions a world lies, and what it then promises.

    Expectations are over p(x, y), entropies in nats, variances summed over next tokens.
    """

    error: float
    """epsilon = E[1 - max_c p(c | x, y)]: 0 where context and next token together tell the concepts."""
    context_error: float
    """epsilon_x = E[1 - max_c p(c | x)]."""
    context_entropy: float
    """E H(c | x)."""
    total_variation: float
    """Mean distance of p(c | y) between two next tokens, 0 to 1."""
    linear_share: float
    """Var(linear term) / Var(log-ratio); NaN where the context tells nothing."""
    residual_share: float
    """Var(h_y - h_{y_0}) / Var(log-ratio)."""
    r_squared: float
    """Of the best linear map from the centred log-posterior to the log-ratios: what an ideal model shows."""


def regime(world: TokenWorld) -> Regime:
    """Exact, by summing over every context; memory V^T * Y * C numbers."""
    contexts = world.contexts
    log_joint = world.log_joint(contexts)
    posterior, found = world.log_posterior(contexts), terms(world, contexts)
    p_x = np.exp(log_joint).sum(axis=1)
    both = np.exp(log_joint[:, :, None] + world.log_next[None])  # p(x, c, y)
    p_c = np.exp(posterior)
    weights = world.next_posterior
    distance = np.abs(weights[:, None] - weights[None]).sum(axis=2) / 2
    num = len(weights)
    total = _variance(found.ratio, p_x)
    return Regime(
        error=float(1 - both.max(axis=1).sum()),
        context_error=float(p_x @ (1 - p_c.max(axis=1))),
        context_entropy=float(-p_x @ xlogy(p_c, p_c).sum(axis=1)),
        total_variation=float(distance.sum() / (num * (num - 1))),
        linear_share=_variance(found.linear, p_x) / total if total > 0 else math.nan,
        residual_share=_variance(found.residual, p_x) / total if total > 0 else math.nan,
        r_squared=population_r_squared(centred(posterior), found.ratio, p_x),
    )


def _variance(values: np.ndarray, p_x: np.ndarray) -> float:
    return float(p_x @ ((values - p_x @ values) ** 2).sum(axis=1))


def population_r_squared(x: np.ndarray, y: np.ndarray, p_x: np.ndarray) -> float:
    """R^2 of least squares from x [N, P] to y [N, Q] over all contexts, each with its probability p(x) [N]."""
    shift = np.concatenate([p_x @ x, p_x @ y])
    one = np.zeros(len(x), np.int64)
    joint = JointMoments.of(x, y, shift=shift, groups=one, weights=len(x) * p_x).joint()
    return r_squared(fit_linear(joint), joint).total
