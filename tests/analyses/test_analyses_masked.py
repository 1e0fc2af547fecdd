"""The masked-bit world: its codes, its exact ceiling, and what a trained model adds to the bits."""

from itertools import product

import numpy as np
import pytest

from lrh_ray.analyses.worlds.concepts import ConceptPrior, chain
from lrh_ray.analyses.worlds.masked import MaskedWorld, masked_trial
from lrh_ray.errors import ConfigError


def prior_of(num_concepts=3, seed=0):
    return ConceptPrior.random(chain(num_concepts), np.random.default_rng(seed))


def test_a_renumbering_names_every_configuration_once():
    world = MaskedWorld.random(prior_of(), 24, np.random.default_rng(0))
    assert sorted(world.codes.sum(axis=0).tolist()) == [4] * 24  # each bit of a permutation is on for half of them


def test_the_ceiling_is_bayes_by_brute_force():
    prior = prior_of()
    world = MaskedWorld.random(prior, 4, np.random.default_rng(1))
    p, correct = np.exp(prior.log_probabilities), 0.0
    for hidden, visible in product(range(4), product((0, 1), repeat=3)):
        agree = (np.delete(world.codes, hidden, axis=1) == visible).all(axis=1)
        for concept in range(3):
            on = prior.configurations[:, concept] == 1
            correct += max(p[agree & on].sum(), p[agree & ~on].sum())
    assert world.ceiling == pytest.approx(correct / 12, abs=1e-12)


def test_all_bits_leave_no_doubt_and_the_hidden_bit_is_not_shown():
    prior = prior_of()
    world = MaskedWorld.random(prior, 24, np.random.default_rng(0))
    assert world.ceiling == pytest.approx(1.0)
    every, hidden = np.arange(8), np.full(8, 5)
    inputs = world.inputs(every, hidden)
    assert (inputs[:, 5] == 0).all()
    assert (inputs[:, 24:] == (np.arange(24) == 5)).all()
    np.testing.assert_array_equal(np.delete(inputs[:, :24], 5, axis=1) > 0, np.delete(world.codes, 5, axis=1) == 1)


def test_features_beat_the_bits_and_never_the_ceiling():
    trials = [masked_trial(prior_of(), num_bits=4, seed=seed) for seed in range(3)]
    for trial in trials:
        assert trial.ceiling - 0.03 <= trial.probe <= trial.ceiling + 0.02
    assert np.mean([trial.probe - trial.raw for trial in trials]) > 0.015
    assert masked_trial(prior_of(), num_bits=4, seed=0) == trials[0]


def test_guesses_that_look_at_nothing_are_the_least_and_random_weights_no_more_than_possible():
    prior = prior_of()
    trial = masked_trial(prior, num_bits=4, seed=1)
    share = np.exp(prior.log_probabilities) @ (prior.configurations == 1)
    assert trial.majority == pytest.approx(np.maximum(share, 1 - share).mean(), abs=1e-12)
    assert trial.majority <= trial.ceiling
    assert trial.majority - 0.03 <= trial.untrained <= trial.ceiling + 0.02


def test_what_the_world_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="binary"):
        MaskedWorld.random(ConceptPrior.random(chain(2), np.random.default_rng(0), (3, 3)), 4, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="2 to 24"):
        MaskedWorld.random(prior_of(), 25, np.random.default_rng(0))
