"""Agreement of two sets of features: what each measure must not notice, and what it must."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from lrh_ray.analyses.worlds.agreement import agreement, agreement_trial, identified, identified_directions
from lrh_ray.analyses.worlds.learning import Recipe

SHORT = Recipe(steps=500, rows=60_000, test_rows=6_000)


def sources(num=6000, k=4, seed=21):
    """Independent, and not Gaussian: what ICA can unmix."""
    rng = np.random.default_rng(seed)
    return np.sign(rng.normal(size=(num, k))) * rng.exponential(size=(num, k)) ** 1.5


def mixture(k=4, seed=22):
    rng = np.random.default_rng(seed)
    return ortho_group.rvs(k, random_state=rng) * [1.0, 2.0, 0.5, 3.0] @ ortho_group.rvs(k, random_state=rng)


def test_an_invertible_map_is_seen_by_none_but_the_plain_coordinates():
    x = sources()
    found = agreement(x, x @ mixture() + 5, seed=0)
    assert found.converged
    assert found.r_squared == pytest.approx(1, abs=1e-6)
    assert found.canonical == pytest.approx(1, abs=1e-9)
    assert found.unmixed > 0.995
    assert found.matched < 0.9


def test_order_signs_and_scales_are_seen_by_none():
    x = sources()
    found = agreement(x, x[:, [2, 0, 3, 1]] * [-1.0, 5.0, 0.1, 2.0], seed=0)
    assert min(found.r_squared, found.canonical, found.matched) == pytest.approx(1, abs=1e-6)


def test_the_order_of_the_two_does_not_matter():
    rng, x = np.random.default_rng(23), sources()
    y = x @ mixture() + 0.5 * rng.normal(size=x.shape)
    one, other = agreement(x, y, seed=0), agreement(y, x, seed=0)
    assert one.r_squared == pytest.approx(other.r_squared, abs=1e-9)
    assert one.canonical == pytest.approx(other.canonical, abs=1e-9)
    assert one.matched == pytest.approx(other.matched, abs=1e-9)
    assert 0.5 < one.r_squared < 0.99


def test_unrelated_features_agree_in_nothing():
    found = agreement(sources(), sources(seed=24), seed=0)
    assert found.r_squared < 0.01
    assert max(found.canonical, found.matched, found.unmixed) < 0.06  # 4 / sqrt(6000) = .05 for the largest of few


def test_what_no_next_token_depends_on_is_left_out():
    rng = np.random.default_rng(25)
    vectors, features = rng.normal(size=(5, 9)), rng.normal(size=(30, 9))
    directions = identified_directions(vectors)
    assert directions.shape == (4, 9)
    np.testing.assert_allclose(directions @ directions.T, np.eye(4), atol=1e-12)
    differences = vectors - vectors[0]
    logits = features @ differences.T
    np.testing.assert_allclose(identified(features, vectors) @ (directions @ differences.T), logits, atol=1e-10)
    unseen = rng.normal(size=9)
    unseen -= unseen @ directions.T @ directions
    np.testing.assert_allclose(identified(features + unseen, vectors), identified(features, vectors), atol=1e-10)
    np.testing.assert_allclose(identified(features, vectors + 7), identified(features, vectors), atol=1e-10)


def test_two_runs_agree_and_controls_do_not():
    trial = agreement_trial(noise=0.03, seed=0, recipe=SHORT)
    assert trial.trained.r_squared > 0.9
    assert trial.trained.canonical > 0.9
    assert set(trial.controls) == {"untrained weights", "another world", "shuffled rows"}
    for control in trial.controls.values():
        assert control.r_squared < trial.trained.r_squared - 0.2
        assert control.canonical < trial.trained.canonical - 0.1
    assert abs(trial.controls["shuffled rows"].r_squared) < 0.02
