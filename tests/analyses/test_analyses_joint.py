"""Joint moments: any split of the rows agrees, groups add and subtract exactly, refits from scratch say the same."""

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.linear_map import fit_linear, fit_path, mean_difference, r_squared
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import ConfigError, NotEnoughData

N, P, Q, GROUPS = 600, 7, 4, 5


def example(seed=0, num=N, noise=0.5):
    """Rows with an offset far from 0, of which y is a noisy linear map, in groups of unequal size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, P)) * np.linspace(0.2, 3, P) + np.linspace(-40, 60, P)
    y = x @ rng.normal(size=(P, Q)) + noise * rng.normal(size=(num, Q)) + 5
    groups = rng.choice(GROUPS, size=num, p=[0.1, 0.15, 0.2, 0.25, 0.3])
    return x, y, groups


def state_of(x, y, groups, rows=slice(None), **options):
    shift = np.concatenate([x[:50].mean(axis=0), y[:50].mean(axis=0)]).astype(np.float64)
    return JointMoments.of(x[rows], y[rows], shift=shift, groups=groups[rows], num_groups=GROUPS, **options)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, N), max_size=6), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts, seed):
    x, y, groups = example()
    order = np.random.default_rng(seed).permutation(N)
    parts = [state_of(x, y, groups, order[a:b]) for a, b in pairwise(sorted({0, N, *cuts}))]
    whole, merged = state_of(x, y, groups), merge_tree(parts)
    np.testing.assert_allclose(merged.grams, whole.grams, rtol=0, atol=1e-12 * np.abs(whole.grams).max())


def test_moments_of_chosen_groups_are_numpys():
    x, y, groups = example()
    state = state_of(x, y, groups)
    for weights in (np.ones(GROUPS), np.eye(GROUPS)[2], 1 - np.eye(GROUPS)[0]):
        joint, own = state.joint(weights), weights[groups] > 0
        both = np.cov(np.hstack([x, y])[own].T, bias=True)
        assert joint.count == own.sum()
        np.testing.assert_allclose(joint.mean_x, x[own].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(joint.mean_y, y[own].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(np.block([[joint.xx, joint.xy], [joint.xy.T, joint.yy]]), both, atol=1e-9)


def test_swapped_sides_are_the_other_problem():
    x, y, groups = example()
    swapped, other = state_of(x, y, groups).joint().swapped, state_of(y, x, groups).joint()
    np.testing.assert_allclose(swapped.gram, other.gram, atol=1e-9)
    np.testing.assert_allclose(swapped.mean_x, other.mean_x)


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 10.0])
def test_cross_validation_is_refitting_from_scratch(penalty):
    x, y, groups = example()
    state = state_of(x, y, groups)
    for fold in range(GROUPS):
        inside = groups == fold
        fitted = fit_linear(state.without(fold), penalty)
        peer = LinearRegression() if not penalty else Ridge(alpha=penalty * (~inside).sum(), solver="svd")
        peer.fit(x[~inside], y[~inside])
        np.testing.assert_allclose(fitted.weights, peer.coef_.T, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(fitted(x[inside]), peer.predict(x[inside]), rtol=1e-8)
        explained = r_squared(fitted, state.only(fold))
        truth, predicted = y[inside], peer.predict(x[inside])
        np.testing.assert_allclose(explained.targets, r2_score(truth, predicted, multioutput="raw_values"), atol=1e-8)
        total = r2_score(truth, predicted, multioutput="variance_weighted")
        assert explained.total == pytest.approx(total, abs=1e-8)


def test_a_bootstrap_draw_is_a_fit_on_repeated_rows():
    x, y, groups = example()
    counts = np.array([2.0, 0, 1, 3, 0])
    rows = np.concatenate([np.flatnonzero(groups == g) for g, times in enumerate(counts) for _ in range(int(times))])
    drawn = fit_linear(state_of(x, y, groups).joint(counts), 1e-4)
    again = Ridge(alpha=1e-4 * len(rows), solver="svd").fit(x[rows], y[rows])
    np.testing.assert_allclose(drawn.weights, again.coef_.T, rtol=1e-8, atol=1e-8)


def test_a_row_of_weight_three_is_three_rows():
    x, y, groups = example()
    weights = np.random.default_rng(2).integers(0, 4, size=N)
    rows = np.repeat(np.arange(N), weights)
    shift = np.concatenate([x[:50].mean(axis=0), y[:50].mean(axis=0)])
    weighted, repeated = (
        JointMoments.of(x[own], y[own], shift=shift, groups=groups[own], num_groups=GROUPS, weights=counts)
        for own, counts in ((np.arange(N), weights.astype(np.float64)), (rows, None))
    )
    np.testing.assert_allclose(weighted.grams, repeated.grams, rtol=0, atol=1e-12 * np.abs(repeated.grams).max())


def test_one_decomposition_serves_all_penalties():
    joint = state_of(*example()).joint()
    for penalty, fitted in zip((1e-3, 1.0), fit_path(joint, (1e-3, 1.0)), strict=True):
        np.testing.assert_allclose(fitted.weights, fit_linear(joint, penalty).weights, rtol=1e-10)


def test_rank_deficient_features_give_the_map_of_least_norm():
    x, y, groups = example()
    twice = np.hstack([x, x[:, :3]])
    fitted = fit_linear(state_of(twice, y, groups).joint())
    centred = twice - twice.mean(axis=0)
    expected = np.linalg.lstsq(centred, y - y.mean(axis=0), rcond=1e-10)[0]
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-7)


def test_shuffled_rows_explain_nothing():
    x, y, groups = example(num=4000)
    shuffled = np.random.default_rng(1).permutation(len(y))
    state = state_of(x, y[shuffled], groups)
    assert abs(r_squared(fit_linear(state.without(0)), state.only(0)).total) < 0.02
    assert r_squared(fit_linear(state_of(x, y, groups).without(0)), state_of(x, y, groups).only(0)).total > 0.9


def test_a_target_without_variance_has_no_r_squared():
    x, y, groups = example()
    y[:, 1] = 3.0
    explained = r_squared(fit_linear(state_of(x, y, groups).joint()), state_of(x, y, groups).joint())
    assert np.isnan(explained.targets[1])
    assert np.isfinite(np.delete(explained.targets, 1)).all()


def test_mean_difference_is_the_difference_of_means():
    x, _, groups = example()
    labels = (np.random.default_rng(3).random(N) < 0.3).astype(np.float64)[:, None]
    expected = x[labels[:, 0] == 1].mean(axis=0) - x[labels[:, 0] == 0].mean(axis=0)
    np.testing.assert_allclose(mean_difference(state_of(x, labels, groups).joint()), expected, rtol=1e-9)


def test_fast_products_keep_seven_digits_where_massive_dimensions_stand():
    """The badly scaled case: bfloat16 rows, two massive dimensions, power-law spectrum; the shift saves the digits."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20_000, 64)) / np.arange(1, 65) ** 0.9).astype(np.float32)
    x[:, 0] += 60
    x[:, 1] -= 20
    x = x.astype(ml_dtypes.bfloat16)
    y = x[:, :2].astype(np.float32) @ np.array([[1.0], [2.0]], np.float32)
    groups = np.zeros(len(x), np.int64)
    shift = np.r_[x[:2000].astype(np.float64).mean(axis=0), y[:2000].mean(axis=0)]
    exact, fast = (
        JointMoments.of(x, y, shift=shift, groups=groups, precision=word).joint() for word in ("exact", "fast")
    )
    assert np.linalg.norm(fast.xx - exact.xx) < 2e-7 * np.linalg.norm(exact.xx)
    truth, quick = fit_linear(exact, 1e-6).weights, fit_linear(fast, 1e-6).weights
    assert np.linalg.norm(quick - truth) < 5e-5 * np.linalg.norm(truth)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_rows_that_are_not_finite_spoil_only_their_group(bad):
    x, y, groups = example()
    x[np.flatnonzero(groups == 3)[-1], 2] = bad
    with np.errstate(all="ignore"):
        state = state_of(x, y, groups)
    with pytest.raises(NotEnoughData, match="not finite"):
        state.joint()
    assert np.isfinite(state.without(3).xx).all()


def test_mistakes_are_named():
    x, y, groups = example()
    state = state_of(x, y, groups)
    with pytest.raises(NotEnoughData, match="0 rows"):
        state.joint(np.zeros(GROUPS))
    with pytest.raises(ConfigError, match="at least 0"):
        fit_linear(state.joint(), -1.0)
    with pytest.raises(ValueError, match="shift"):
        JointMoments.of(x, y, shift=np.zeros(3), groups=groups)
