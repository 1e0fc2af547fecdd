"""Cluster-robust least squares: the sandwich of the textbook, any split, intervals that cover, an honest null."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from lrh_ray.analyses.joint import Joint, JointMoments
from lrh_ray.analyses.linear_map import LinearMap, fit_linear, r_squared
from lrh_ray.analyses.robust_ols import RobustInference, ScoreState, robust_inference
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import ConfigError, NotEnoughData

N, P, Q, G = 400, 5, 3, 25
WEIGHTS = np.array([1.0, -0.5, 0.0])


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets far from 0, clusters of unequal size that share part of x and of the error."""
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, G, size=N))
    x = rng.normal(size=(N, P)) + rng.normal(size=(G, P))[groups] + np.linspace(-40, 60, P)
    error = rng.normal(size=(N, Q)) + rng.normal(size=(G, Q))[groups]
    return x, x @ rng.normal(size=(P, Q)) + error + 5, groups


def joint_of(x: np.ndarray, y: np.ndarray) -> Joint:
    shift = np.r_[x[:20].mean(axis=0), y[:20].mean(axis=0)]
    return JointMoments.of(x, y, shift=shift, groups=np.zeros(len(x), dtype=np.int64)).joint()


def scores_of(
    joint: Joint, fitted: LinearMap, x: np.ndarray, y: np.ndarray, groups: np.ndarray, num_groups: int
) -> ScoreState:
    return ScoreState.of(x, y, joint=joint, fitted=fitted, groups=groups, num_groups=num_groups)


def inference_of(x: np.ndarray, y: np.ndarray, groups: np.ndarray, num_groups: int = G) -> RobustInference:
    joint = joint_of(x, y)
    fitted = fit_linear(joint)
    return robust_inference(joint, fitted, scores_of(joint, fitted, x, y, groups, num_groups))


def sandwich(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """CR1 covariance of weights and intercept of one target, from its definition."""
    design = np.c_[x, np.ones(len(x))]
    bread = np.linalg.inv(design.T @ design)
    e = y - design @ (bread @ (design.T @ y))
    present, (n, k) = np.unique(groups), design.shape
    scores = [design[groups == g].T @ e[groups == g] for g in present]
    meat = sum(np.outer(s, s) for s in scores)
    factor = len(present) / (len(present) - 1) * (n - 1) / (n - k)
    return np.asarray(factor * bread @ meat @ bread)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, N), max_size=6), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts: list[int], seed: int) -> None:
    x, y, groups = example()
    joint = joint_of(x, y)
    fitted, order = fit_linear(joint), np.random.default_rng(seed + 9).permutation(N)
    parts = [order[a:b] for a, b in pairwise(sorted({0, N, *cuts}))]
    whole = scores_of(joint, fitted, x, y, groups, G)
    merged = merge_tree(scores_of(joint, fitted, x[part], y[part], groups[part], G) for part in parts)
    for name in ("scores", "residuals", "targets", "rows"):
        one, other = getattr(merged, name), getattr(whole, name)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


def test_covariance_equals_the_sandwich_of_the_definition() -> None:
    """x is centred for the oracle's inverse to keep its digits; the intercept is compared at that origin."""
    x, y, groups = example()
    x = x - x.mean(axis=0) + 0.3
    inference = inference_of(x, y, groups)
    assert inference.num_groups == len(np.unique(groups))
    for target in range(Q):
        expected = sandwich(x, y[:, target], groups)
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert (np.abs(inference.covariance(target) - expected) < 1e-10 * scale).all()
        errors = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(inference.standard_errors[:, target], errors[:-1], rtol=1e-10)
        assert inference.intercept_errors[target] == pytest.approx(errors[-1], rel=1e-10)


def test_offsets_change_the_intercept_only() -> None:
    x, y, groups = example()
    near, far = inference_of(x - x.mean(axis=0), y, groups), inference_of(x + 1000, y, groups)
    np.testing.assert_allclose(far.standard_errors, near.standard_errors, rtol=1e-9)
    np.testing.assert_allclose(far.r_squared_low, near.r_squared_low, rtol=1e-9)
    assert (far.intercept_errors > 100 * near.intercept_errors).all()


def test_rows_that_are_their_own_clusters_give_the_heteroscedastic_errors() -> None:
    """HC1 of White (1980) with n / (n - k)."""
    x, y, _ = example()
    inference = inference_of(x, y, np.arange(N), N)
    design = np.c_[x - x.mean(axis=0), np.ones(N)]
    bread = np.linalg.inv(design.T @ design)
    for target in range(Q):
        e = y[:, target] - design @ np.linalg.lstsq(design, y[:, target], rcond=None)[0]
        hc1 = N / (N - P - 1) * bread @ (design.T * e**2) @ design @ bread
        np.testing.assert_allclose(inference.standard_errors[:, target], np.sqrt(np.diag(hc1))[:-1], rtol=1e-9)


def test_groups_without_rows_are_no_clusters() -> None:
    x, y, groups = example()
    one, other = inference_of(x, y, groups), inference_of(x, y, 3 * groups + 1, 3 * G + 10)
    np.testing.assert_allclose(other.standard_errors, one.standard_errors, rtol=1e-12)
    np.testing.assert_allclose(other.high, one.high, rtol=1e-12)


def test_r_squared_is_that_of_the_map_and_its_interval_stays_below_one() -> None:
    x, y, groups = example()
    joint, inference = joint_of(x, y), inference_of(x, y, groups)
    np.testing.assert_allclose(inference.r_squared, r_squared(fit_linear(joint), joint).targets, rtol=1e-10)
    assert (inference.r_squared_low < inference.r_squared).all()
    assert (inference.r_squared < inference.r_squared_high).all()
    assert (inference.r_squared_high < 1).all()


# --- coverage -------------------------------------------------------------------------------------------------------


def clustered(rng: np.random.Generator, num_groups: int = 80, per: int = 15) -> tuple[np.ndarray, ...]:
    """Three features of which half the variance is shared by a cluster, and an error of which a third is."""
    groups = np.repeat(np.arange(num_groups), per)
    x = rng.normal(size=(len(groups), 3)) + rng.normal(size=(num_groups, 3))[groups]
    error = np.sqrt(2) * rng.normal(size=len(groups)) + rng.normal(size=num_groups)[groups]
    return x, (x @ WEIGHTS + error)[:, None], groups


def test_robust_intervals_cover_and_those_of_rows_do_not() -> None:
    """400 corpora: weights and R^2 at 95 %; population R^2 is 2 |w|^2 / (2 |w|^2 + 3)."""
    rng, studies = np.random.default_rng(21), 400
    truth = 2 * WEIGHTS @ WEIGHTS / (2 * WEIGHTS @ WEIGHTS + 3)
    robust, naive, explained = np.zeros(3), np.zeros(3), 0
    for _ in range(studies):
        x, y, groups = clustered(rng)
        inference = inference_of(x, y, groups, 80)
        robust += (inference.low[:, 0] <= WEIGHTS) & (inference.high[:, 0] >= WEIGHTS)
        explained += bool(inference.r_squared_low[0] <= truth <= inference.r_squared_high[0])
        low, high = naive_interval(x, y[:, 0])
        naive += (low <= WEIGHTS) & (high >= WEIGHTS)
    least, most = binom.ppf([0.0005, 0.9995], studies, 0.95) / studies
    assert (robust / studies > least - 0.01).all(), robust  # CR1 with 80 clusters is about 0.005 short of its level
    assert (robust / studies < most).all(), robust
    assert least - 0.01 < explained / studies < most, explained
    assert (naive / studies < 0.88).all(), naive


def naive_interval(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Textbook interval of independent rows."""
    design = np.c_[x, np.ones(len(x))]
    bread = np.linalg.inv(design.T @ design)
    w = bread @ (design.T @ y)
    dof = len(x) - design.shape[1]
    errors = np.sqrt(np.diag(bread) * ((y - design @ w) ** 2).sum() / dof)
    reach = student.ppf(0.975, dof) * errors
    return (w - reach)[:-1], (w + reach)[:-1]


def test_weights_of_shuffled_clusters_are_not_significant() -> None:
    """Clusters of x meet clusters of y at random: 95 % of intervals hold 0, whatever either side shares inside."""
    rng, order = np.random.default_rng(22), np.random.default_rng(23)
    rejected, studies = 0, 300
    for _ in range(studies):
        x, y, groups = clustered(rng)
        shuffled = y.reshape(80, 15)[order.permutation(80)].reshape(-1, 1)
        inference = inference_of(x, shuffled, groups, 80)
        rejected += bool(inference.low[0, 0] > 0 or inference.high[0, 0] < 0)
    low, high = binom.ppf([0.0005, 0.9995], studies, 0.055)
    assert low <= rejected <= high, rejected


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_target_without_variance_has_no_r_squared() -> None:
    x, y, groups = example()
    y[:, 1] = 3.0
    inference = inference_of(x, y, groups)
    assert np.isnan(inference.r_squared[1])
    assert np.isnan(inference.r_squared_low[1])
    assert np.isfinite(np.delete(inference.r_squared_low, 1)).all()


def test_mistakes_are_named() -> None:
    x, y, groups = example()
    joint = joint_of(x, y)
    fitted = fit_linear(joint)
    state = scores_of(joint, fitted, x, y, groups, G)
    with pytest.raises(ConfigError, match="level"):
        robust_inference(joint, fitted, state, level=95)
    with pytest.raises(ConfigError, match=r"penalty of 0\.1"):
        robust_inference(joint, fit_linear(joint, 0.1), state)
    with pytest.raises(ValueError, match="100 rows"):
        robust_inference(joint, fitted, scores_of(joint, fitted, x[:100], y[:100], groups[:100], G))
    with pytest.raises(NotEnoughData, match="1 clusters"):
        robust_inference(joint, fitted, scores_of(joint, fitted, x, y, 0 * groups, 1))
    with pytest.raises(ValueError, match="400 groups"):
        scores_of(joint, fitted, x, y[:-1], groups, G)
    twice = np.c_[x, x[:, 0]]
    with pytest.raises(NotEnoughData, match="6 features have rank 5"):
        inference_of(twice, y, groups)
