"""What a linear map of rank k leaves unexplained, for every k: reduced-rank regression (Izenman 1975).

    fitted = best_ridge(training, held_out)
    left = left_by_rank(fitted, training, held_out)        # [Q + 1], k from 0; the last is the map of full rank

Of all maps of rank k, the one of the least ridge loss on the training rows is B V_k V_k^T, where B is the ridge map and
V_k holds the k leading eigenvectors of B^T (cov(x) + penalty I) B. One pass over the rows therefore gives the maps of
every rank, and what they leave of the held-out rows, from moments alone.

It is to a map between sites what principal components are to a site: the same number of directions, without sparsity.
With y = x the two are the same.

What can go wrong: the variance is that about the held-out mean, and a mean that moved between the parts counts as left;
with k = 0 the number can be a little above 1.
"""

import numpy as np

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.linear_map import LinearMap, fit_path, r_squared

PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""Of ridge, as multiples of the mean variance of a feature."""


def best_ridge(training: Joint, held_out: Joint) -> LinearMap:
    """The map, of those of all `PENALTIES`, that explains most of the held-out rows; as a yardstick it is to be good.

    O(P^3 + P^2 Q) for each penalty.
    """
    scale = float(np.trace(training.xx)) / len(training.xx)
    fitted = fit_path(training, tuple(scale * penalty for penalty in PENALTIES))
    return max(fitted, key=lambda one: r_squared(one, held_out).total)


def left_by_rank(fitted: LinearMap, training: Joint, held_out: Joint) -> np.ndarray:
    """Share of the held-out variance of y that maps of rank 0 ... Q leave [Q + 1]; `fitted` is of training rows."""
    B = fitted.weights
    _, V = np.linalg.eigh(B.T @ (training.xx @ B + fitted.penalty * B))
    V, x_off, y_off = V[:, ::-1], held_out.mean_x - training.mean_x, held_out.mean_y - training.mean_y
    BV, xx = B @ V, held_out.xx + np.outer(x_off, x_off)
    xy = held_out.xy + np.outer(x_off, y_off)
    spared = 2 * np.einsum("pk,pk->k", BV, xy @ V) - np.einsum("pk,pk->k", BV, xx @ BV)
    variance = np.trace(held_out.yy)
    return np.asarray((variance + y_off @ y_off - np.concatenate([[0.0], spared.cumsum()])) / variance)
