"""Linear maps of every rank from moments are those that a singular value decomposition of all rows gives."""

import numpy as np
import pytest

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.linear_map import fit_linear, r_squared
from lrh_ray.analyses.reduced_rank import best_ridge, left_by_rank

ROWS, P, Q, RANK = 4000, 10, 7, 3


def ends(seed, noise=0.5, scale=1.0):
    """Rows y that a map of rank 3 makes of rows x, both far from the origin."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(5)
    mixed = truth.standard_normal((P, RANK)) @ truth.standard_normal((RANK, Q))
    x = rng.standard_normal((ROWS, P)) * np.linspace(0.5, 2, P) + 4
    return x, scale * (x @ mixed + noise * rng.standard_normal((ROWS, Q)) - 3)


def joint(x, y):
    groups = np.zeros(len(x), np.int64)
    return JointMoments.of(x, y, shift=np.zeros(x.shape[1] + y.shape[1]), groups=groups).joint()


def test_each_rank_is_the_least_squares_map_of_that_rank():
    """Without a penalty: the decomposition of the fitted values of all training rows (Izenman 1975)."""
    (x, y), (x_new, y_new) = ends(0), ends(1)
    training, held_out = joint(x, y), joint(x_new, y_new)
    left = left_by_rank(fit_linear(training), training, held_out)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    weights = np.linalg.lstsq(x - mean_x, y - mean_y, rcond=None)[0]
    _, _, V = np.linalg.svd((x - mean_x) @ weights, full_matrices=False)
    spread = ((y_new - y_new.mean(axis=0)) ** 2).sum()
    for rank in range(Q + 1):
        made = mean_y + (x_new - mean_x) @ weights @ V[:rank].T @ V[:rank]
        assert left[rank] == pytest.approx(((y_new - made) ** 2).sum() / spread, rel=1e-9)
    assert left[0] == pytest.approx(1, abs=0.01)
    assert left[RANK] < 0.02 < left[RANK - 1]


def test_full_rank_is_ridge_and_of_a_set_with_itself_it_is_principal_components():
    training, held_out = joint(*ends(0)), joint(*ends(1))
    fitted = fit_linear(training, penalty=0.3)
    assert left_by_rank(fitted, training, held_out)[-1] == pytest.approx(1 - r_squared(fitted, held_out).total)
    x, x_new = ends(0)[0], ends(1)[0]
    own, other = joint(x, x), joint(x_new, x_new)
    _, directions = np.linalg.eigh(own.xx)
    off = other.mean_x - own.mean_x
    for k, left in enumerate(left_by_rank(fit_linear(own), own, other)):
        rest = directions[:, : P - k]
        expected = np.trace(rest.T @ (other.xx + np.outer(off, off)) @ rest) / np.trace(other.xx)
        assert left == pytest.approx(expected, rel=1e-9)


def test_the_best_penalty_is_that_for_held_out_rows_and_unrelated_rows_leave_all():
    (x, y), (x_new, y_new) = ends(0, noise=30), ends(1, noise=30)
    few = joint(x[:12], y[:12])
    best = best_ridge(few, joint(x_new, y_new))
    assert best.penalty > 1e-3
    assert r_squared(best, joint(x_new, y_new)).total > r_squared(fit_linear(few), joint(x_new, y_new)).total
    shuffled = np.random.default_rng(2).permutation(y)
    fitted = best_ridge(joint(x, shuffled), joint(x_new, y_new))
    assert left_by_rank(fitted, joint(x, shuffled), joint(x_new, y_new)).min() > 0.98
