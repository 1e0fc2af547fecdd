"""Corollary 4.2: exact where the next token tells the configuration, and otherwise as good as the theorem."""

import numpy as np
import pytest

from lrh_ray.analyses.worlds import ConceptPrior, TokenWorld, centred, chain
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.steering import (
    DOSES,
    concept_direction,
    edited,
    steer,
    steer_all,
    steering_trial,
)

SHORT = Recipe(steps=600, rows=60_000, test_rows=3_000)


def drawn(world, num=1600, seed=11):
    return world.draw(num, np.random.default_rng(seed))[0]


def perfect(world, contexts):
    features = centred(world.log_predictive(contexts))
    return features, np.eye(features.shape[1])


def test_the_edit_moves_one_concept_and_keeps_the_others_given_it():
    world = direct_world(0.1, 0)
    contexts = drawn(world, 50)
    no_edit, up = edited(world, contexts, 1, np.array([0.0, 0.7]))
    np.testing.assert_allclose(no_edit, np.exp(world.log_predictive(contexts)), atol=1e-12)
    p = np.exp(world.log_posterior(contexts)).reshape(-1, 2, 2, 2)
    odds = p[:, :, :1].sum(axis=(1, 3)) / p[:, :, 1:].sum(axis=(1, 3)) * np.exp(1.4)
    marginal = np.concatenate([odds / (1 + odds), 1 / (1 + odds)], axis=1)
    changed = p / p.sum(axis=(1, 3), keepdims=True) * marginal[:, None, :, None]
    np.testing.assert_allclose(up, changed.reshape(-1, 8) @ np.exp(world.log_next), atol=1e-12)


def test_steering_is_exact_where_the_next_token_names_the_configuration():
    """Without noise log p(y|x) is log p(c|x) itself: the corollary holds exactly, for every concept."""
    world = direct_world(1e-12, 3)
    contexts = drawn(world)
    for found in steer_all(world, contexts, *perfect(world, contexts), seed=0):
        assert found.slope == pytest.approx(1, abs=1e-4)
        assert found.explained == pytest.approx(1, abs=1e-4)
        assert found.leakage < 1e-3
        assert [dose.asked for dose in found.doses] == pytest.approx(2 * DOSES, abs=1e-4)
        assert [dose.found for dose in found.doses] == pytest.approx([dose.asked for dose in found.doses], abs=1e-3)
        assert found.low <= found.slope + 1e-9
        assert found.high >= found.slope - 1e-9


def test_a_perfect_model_of_a_noisier_world_is_steered_less_well():
    found = {}
    for noise in (0.3, 0.03, 0.001):
        world = direct_world(noise, 0)
        contexts = drawn(world)
        found[noise] = np.mean([one.explained for one in steer_all(world, contexts, *perfect(world, contexts), seed=0)])
    assert found[0.3] < found[0.03] < found[0.001]


def test_the_basis_of_the_features_does_not_matter():
    world = direct_world(0.1, 1)
    contexts = drawn(world)
    features, vectors = perfect(world, contexts)
    basis = np.random.default_rng(2).normal(size=(8, 8)) + 3 * np.eye(8)
    plain = steer_all(world, contexts, features, vectors, seed=0)
    other = steer_all(world, contexts, features @ basis, vectors @ np.linalg.inv(basis).T, seed=0)
    for one, same in zip(plain, other, strict=True):
        assert same.slope == pytest.approx(one.slope, abs=1e-4)
        assert same.explained == pytest.approx(one.explained, abs=1e-4)


def test_a_direction_of_another_concept_or_of_none_does_not_do_it():
    world = direct_world(0.01, 0)
    contexts = drawn(world)
    features, vectors = perfect(world, contexts)
    own, wrong = (concept_direction(world, contexts, features, concept) for concept in (0, 2))
    right = steer(world, contexts, features, vectors, own, concept=0, seed=0)
    swapped = steer(world, contexts, features, vectors, wrong, concept=0, seed=0)
    nothing = steer(world, contexts, features, vectors, np.zeros(8), concept=0, seed=0)
    assert right.slope > 0.8
    assert right.slope > right.null
    assert abs(swapped.slope) < 0.3
    assert swapped.leakage > 2 * right.leakage
    assert nothing.slope == 0
    assert nothing.explained == pytest.approx(0, abs=1e-12)
    assert nothing.null == 0


def test_a_categorical_concept_is_steered_between_its_first_two_values():
    rng = np.random.default_rng(6)
    world = TokenWorld.telling(ConceptPrior.random(chain(2), rng, (3, 2)), rng, noise=1e-12, context=3)
    contexts = drawn(world)
    first, second = steer_all(world, contexts, *perfect(world, contexts), seed=0)
    assert first.slope == pytest.approx(1, abs=1e-4)
    assert second.slope == pytest.approx(1, abs=1e-4)


def test_a_trained_model_is_steered_by_its_concepts_and_not_by_chance():
    trial = steering_trial(noise=0.03, seed=0, recipe=SHORT)
    assert len(trial.trained) == len(trial.perfect) == 3
    for found in trial.trained:
        assert found.low < found.slope < found.high
        assert 0.6 < found.slope < 1.4
        assert found.slope > found.null
        assert found.explained > 0.5


def test_the_same_seed_is_the_same_trial():
    quick = Recipe(steps=5, rows=600, test_rows=200)
    assert steering_trial(noise=0.1, seed=1, recipe=quick) == steering_trial(noise=0.1, seed=1, recipe=quick)


def test_doses_go_both_ways():
    np.testing.assert_array_equal(DOSES, -DOSES[::-1])
