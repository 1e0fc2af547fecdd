"""What is known of dead latents before training is what Gaussian rows do."""

import numpy as np
import pytest
import torch

from lrh_ray.analyses.sae.firing_prior import expected_dead, firing_prior, pre_activation_spread
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.reader import TopKReader

WIDTH, LATENTS, ROWS = 24, 600, 1500


def planted(power):
    """A covariance whose variances fall with a power, the first weights, and rows of it around a mean far from 0."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))
    variances = np.arange(1.0, WIDTH + 1) ** -power
    covariance = basis * (variances / variances.sum()) @ basis.T
    mean = rng.standard_normal(WIDTH)
    rows = rng.multivariate_normal(mean, covariance, ROWS).astype(np.float32)
    return covariance, dict(first_weights(LATENTS, mean, seed=0).named()), torch.from_numpy(rows)


def pre_activations(weights, rows):
    return ((rows - weights["decoder_bias"]) @ weights["encoder"].T).numpy()


def test_spreads_are_those_of_pre_activations():
    covariance, weights, rows = planted(1.0)
    found = pre_activation_spread(weights["encoder"], covariance)
    np.testing.assert_allclose(found, pre_activations(weights, rows).std(axis=0), rtol=0.1)
    encoder = weights["encoder"].double().numpy()
    np.testing.assert_allclose(found**2, np.diagonal(encoder @ covariance @ encoder.T), rtol=1e-4)


@pytest.mark.parametrize("power", [0.0, 2.0, 4.0])
def test_shares_and_dead_are_those_of_gaussian_rows_above_one_threshold(power):
    covariance, weights, rows = planted(power)
    prior = firing_prior(pre_activation_spread(weights["encoder"], covariance), 6)
    assert prior.sum() == pytest.approx(6)
    pre = pre_activations(weights, rows)
    fires = pre > np.partition(pre, -6 * ROWS, axis=None)[-6 * ROWS]
    error = np.sqrt(prior * (1 - prior) / ROWS)
    assert np.abs(fires.mean(axis=0) - prior).max() < 5 * error.max() + 0.01
    assert expected_dead(prior, ROWS) == pytest.approx((~fires.any(axis=0)).mean(), abs=0.05)


def test_rows_of_few_directions_leave_latents_dead_under_the_largest_of_each_row_too():
    dead = {}
    for power in (0.0, 4.0):
        covariance, weights, rows = planted(power)
        codes = TopKReader(parameters=weights, k=6).codes(rows)
        expected = expected_dead(firing_prior(pre_activation_spread(weights["encoder"], covariance), 6), ROWS)
        dead[power] = expected, (~(codes > 0).any(dim=0)).double().mean().item()
    assert dead[0.0] == pytest.approx((0, 0), abs=0.01)
    assert min(dead[4.0]) > 0.2


def test_the_same_spread_is_the_same_share():
    np.testing.assert_allclose(firing_prior(np.full(50, 0.3), 5), 0.1)
    assert expected_dead(np.full(50, 0.1), 20) == pytest.approx(0.9**20)


def test_more_codes_than_positive_pre_activations_leave_a_half():
    np.testing.assert_allclose(firing_prior(np.array([1.0, 2.0, 0.0]), 3), [0.5, 0.5, 0.0])
