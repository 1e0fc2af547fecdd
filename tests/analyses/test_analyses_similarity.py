"""Similarities against other ways to compute them, and what each must not notice."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.erasure import leace
from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.similarity import (
    canonical,
    cka,
    correlation_matrix,
    effective_rank,
    mcc,
    procrustes,
    pwcca,
    subspace_angles,
    unbiased_cka,
    weak_mcc,
)
from lrh_ray.errors import ConfigError, NotEnoughData


def joint_of(x, y):
    shift = np.r_[x[:20].mean(axis=0), y[:20].mean(axis=0)]
    return JointMoments.of(x, y, shift=shift, groups=np.zeros(len(x), np.int64)).joint()


def sides(num=400, p=6, q=5, seed=0, noise=1.0):
    """Two noisy views of common factors, off centre."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num, 4))
    x = factors @ rng.normal(size=(4, p)) + noise * rng.normal(size=(num, p)) + 10
    y = factors @ rng.normal(size=(4, q)) + noise * rng.normal(size=(num, q)) - 3
    return x, y


def gram_hsic(x, y):
    """Unbiased HSIC by its definition, with n x n kernels (Song et al. 2012, eq. 5)."""
    n = len(x)
    K, L = x @ x.T, y @ y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    ones = np.ones(n)
    mixed = ones @ K @ L @ ones
    total = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return (np.trace(K @ L) + total - 2 * mixed / (n - 2)) / (n * (n - 3))


def test_canonical_correlations_are_those_of_the_qr_method_and_of_scikit_learn():
    x, y = sides()
    found = canonical(joint_of(x, y))
    qx, qy = (np.linalg.qr(side - side.mean(axis=0))[0] for side in (x, y))
    np.testing.assert_allclose(found.correlations, np.linalg.svd(qx.T @ qy)[1], atol=1e-8)
    u, v = (x - x.mean(axis=0)) @ found.x, (y - y.mean(axis=0)) @ found.y
    np.testing.assert_allclose(u.T @ u / len(x), np.eye(5), atol=1e-8)
    np.testing.assert_allclose(u.T @ v / len(x), np.diag(found.correlations), atol=1e-8)
    peer = CCA(n_components=1, scale=False, tol=1e-14, max_iter=20_000).fit(x, y)
    a, b = peer.transform(x, y)
    assert found.correlations[0] == pytest.approx(abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]), abs=1e-8)


def test_svcca_is_cca_of_the_leading_components():
    x, y = sides()
    reduced = []
    for side in (x, y):
        u, values, _ = np.linalg.svd(side - side.mean(axis=0), full_matrices=False)
        kept = int(np.searchsorted(np.cumsum(values**2) / np.sum(values**2), 0.9)) + 1
        reduced.append(u[:, :kept] * values[:kept])
    assert min(part.shape[1] for part in reduced) < 5  # something is left out
    np.testing.assert_allclose(
        canonical(joint_of(x, y), keep=0.9).correlations, canonical(joint_of(*reduced)).correlations, atol=1e-8
    )


def test_pwcca_weighs_by_the_share_of_x():
    x, y = sides()
    centred = x - x.mean(axis=0)
    found = canonical(joint_of(x, y))
    weights = np.abs(centred.T @ (centred @ found.x)).sum(axis=0)
    assert pwcca(joint_of(x, y)) == pytest.approx(np.average(found.correlations, weights=weights), abs=1e-8)


def test_cka_is_that_of_the_kernels():
    x, y = sides()
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    K, L = a @ a.T, b @ b.T
    assert cka(joint_of(x, y)) == pytest.approx(np.sum(K * L) / np.linalg.norm(K) / np.linalg.norm(L), abs=1e-8)
    unbiased = gram_hsic(x, y) / np.sqrt(gram_hsic(x, x) * gram_hsic(y, y))
    assert unbiased_cka(joint_of(x, y)) == pytest.approx(unbiased, abs=1e-8)


def test_procrustes_is_scipys():
    x, y = sides(p=5)
    found = procrustes(joint_of(x, y))
    assert found.disparity == pytest.approx(scipy.spatial.procrustes(x, y)[2], abs=1e-8)
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    np.testing.assert_allclose(found.rotation, scipy.linalg.orthogonal_procrustes(a, b)[0], atol=1e-8)
    residual = np.linalg.norm(b - found.scale * a @ found.rotation) ** 2 / np.linalg.norm(b) ** 2
    assert residual == pytest.approx(found.disparity, abs=1e-8)


def test_mcc_finds_a_hidden_order_signs_and_scales():
    x, _ = sides()
    order, signs = np.random.default_rng(2).permutation(6), np.array([1, -1, 2, -3, 1, -1])
    found = mcc(joint_of(x, x[:, order] * signs + 7))
    assert found.mean == pytest.approx(1.0, abs=1e-8)
    np.testing.assert_array_equal(order[found.y], found.x)
    np.testing.assert_array_equal(np.sign(found.correlations), np.sign(signs[found.y]))
    expected = np.corrcoef(np.hstack([x, x[:, order]]).T)[:6, 6:]
    np.testing.assert_allclose(correlation_matrix(joint_of(x, x[:, order])), expected, atol=1e-8)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_each_measure_ignores_what_it_says(seed):
    rng = np.random.default_rng(seed)
    x, y = sides(seed=3)
    plain = joint_of(x, y)
    linear = joint_of(x @ (rng.normal(size=(6, 6)) + 3 * np.eye(6)), y @ (rng.normal(size=(5, 5)) + 3 * np.eye(5)))
    rotated = joint_of(2.5 * x @ ortho_group.rvs(6, random_state=seed) + 1, y @ ortho_group.rvs(5, random_state=seed))
    permuted = joint_of(x[:, rng.permutation(6)] * -3, y[:, rng.permutation(5)])
    np.testing.assert_allclose(canonical(linear).correlations, canonical(plain).correlations, atol=1e-6)
    assert weak_mcc(linear).mean == pytest.approx(weak_mcc(plain).mean, abs=1e-6)
    for measure in (cka, unbiased_cka, lambda it: procrustes(it).disparity, lambda it: effective_rank(it.xx)):
        assert measure(rotated) == pytest.approx(measure(plain), abs=1e-8)
    assert mcc(permuted).mean == pytest.approx(mcc(plain).mean, abs=1e-8)


def test_independent_sides_are_alike_for_the_biased_measure_only():
    rng = np.random.default_rng(0)
    drawn = [joint_of(rng.normal(size=(60, 20)), rng.normal(size=(60, 20))) for _ in range(200)]
    assert np.mean([cka(joint) for joint in drawn]) > 0.2
    unbiased = np.array([unbiased_cka(joint) for joint in drawn])
    assert abs(unbiased.mean()) < 4 * unbiased.std() / np.sqrt(len(unbiased))


def test_effective_rank_counts_directions():
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.diag([3.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(5 * np.diag([0.5, 0.5, 0.0])) == pytest.approx(2)


def test_angles_between_planes():
    first = np.eye(4)[:, :2]
    second = np.stack([[1, 0, 0, 0], [0, np.cos(0.3), np.sin(0.3), 0]], axis=1)
    np.testing.assert_allclose(subspace_angles(first, second), [0.3, 0.0], atol=1e-12)


def test_an_erased_concept_leaves_a_logistic_probe_at_chance():
    rng = np.random.default_rng(0)
    classes = rng.integers(3, size=3000)
    x = rng.normal(size=(3000, 12)) @ rng.normal(size=(12, 12)) + 2 * rng.normal(size=(3, 12))[classes] + 30
    onehot = np.eye(3)[classes]
    eraser = leace(joint_of(x, onehot))
    erased = eraser(x)
    assert eraser.rank == 2
    assert LogisticRegression(solver="newton-cholesky").fit(x, classes).score(x, classes) > 0.8
    for k in range(3):
        np.testing.assert_allclose(erased[classes == k].mean(axis=0), x.mean(axis=0), atol=1e-8)
    probe = LogisticRegression(solver="newton-cholesky").fit(erased, classes)
    assert np.abs(probe.coef_).max() < 1e-4
    assert probe.score(erased, classes) == pytest.approx(np.bincount(classes).max() / 3000)
    np.testing.assert_allclose(eraser(erased), erased, atol=1e-8)  # a projection


def test_erasure_moves_rows_no_more_than_removing_the_mean_difference():
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=2000)
    x = rng.normal(size=(2000, 5)) * [3, 1, 1, 1, 0.3] + np.outer(labels, [2, 0, 0, 0, 1])
    joint = joint_of(x, labels[:, None].astype(np.float64))
    direction = x[labels == 1].mean(axis=0) - x[labels == 0].mean(axis=0)
    direction /= np.linalg.norm(direction)
    centred = x - x.mean(axis=0)
    plain = centred - np.outer(centred @ direction, direction)
    assert np.linalg.norm(leace(joint)(x) - x) < np.linalg.norm(plain - centred)


def test_mistakes_are_named():
    x, y = sides(num=30)
    with pytest.raises(ConfigError, match="keep"):
        canonical(joint_of(x, y), keep=0.0)
    with pytest.raises(NotEnoughData, match="does not vary"):
        canonical(joint_of(np.ones((30, 2)), y))
    with pytest.raises(NotEnoughData, match="at least 4"):
        unbiased_cka(joint_of(x[:3], y[:3]))
