"""Exact log-odds are what enumeration says, a perfect model's probes know them, and shuffled labels teach nothing."""

import numpy as np
import pytest

from lrh_ray.analyses.worlds.bound import (
    AUTOENCODER,
    RANDOM,
    best_latents,
    bound_trial,
    exact_log_odds,
    probe_log_odds,
)
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import Recipe


def test_exact_log_odds_are_those_of_every_configuration():
    world = direct_world(0.1, 0)
    contexts, _, _ = world.draw(20, np.random.default_rng(0))
    found = exact_log_odds(world, contexts)
    joint, configurations = np.exp(world.log_joint(contexts)), world.prior.configurations
    for concept in range(3):
        first, second = (joint[:, configurations[:, concept] == value].sum(axis=1) for value in (0, 1))
        np.testing.assert_allclose(found[:, concept], np.log(first / second), rtol=1e-9)


def test_a_probe_of_features_that_hold_the_log_odds_finds_them():
    """Marginal log-odds as features: the probe's are theirs, but for what the sample leaves open."""
    world = direct_world(0.1, 1)
    contexts, _, drawn = world.draw(8000, np.random.default_rng(0))
    exact = exact_log_odds(world, contexts)
    labels = (world.prior.configurations[drawn] == 0).astype(float)
    found = probe_log_odds(np.column_stack([exact, np.ones((8000, 2)) * np.arange(8000)[:, None] % 7]), labels)
    for concept in range(3):
        assert np.corrcoef(found[4000:, concept], exact[4000:, concept])[0, 1] > 0.99


def test_latents_are_chosen_on_one_half_and_scored_on_the_other():
    rng = np.random.default_rng(0)
    probe = rng.standard_normal((400, 2))
    exact, codes = probe + 0.5 * rng.standard_normal((400, 2)), rng.standard_normal((400, 30))
    by_chance = best_latents(codes, probe, exact)
    assert abs(by_chance.probe) < 0.15  # chosen for a correlation of about .2 on the first half
    codes[:, [4, 9]] = 3 * probe + 1
    found = best_latents(codes, probe, exact)
    assert found.probe == pytest.approx(1)
    assert found.truth == pytest.approx(np.mean([np.corrcoef(probe[200:, i], exact[200:, i])[0, 1] for i in (0, 1)]))


def test_in_a_trial_the_truth_bounds_the_probe_and_shuffled_labels_teach_nothing():
    trial = bound_trial(noise=0.01, seed=0, recipe=Recipe(steps=60, test_rows=6000))
    assert min(trial.perfect) > 0.85
    assert np.mean(trial.probe) > np.abs(trial.controls["shuffled labels"]).mean() + 0.3
    assert max(trial.probe) < 1  # features of a model are no log-odds of concepts, and neither is a probe of them
    assert trial.accuracy <= trial.bayes + 0.02
    assert trial.latents[AUTOENCODER].probe > 0.3
    for found in trial.latents.values():
        assert -1 <= found.truth <= 1
    assert set(trial.latents) == {AUTOENCODER, RANDOM}
