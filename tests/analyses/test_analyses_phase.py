"""The phase diagram: exact facts about its targets, and what few features can hold."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from lrh_ray.analyses.worlds import ConceptPrior, TokenWorld, centred, chain
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.phase import Place, linear_ceiling, marginal_posteriors, phase_point, width_trial
from lrh_ray.analyses.worlds.theorem import population_r_squared, regime
from lrh_ray.errors import ConfigError


def test_marginals_are_sums_over_configurations():
    world = Place(kind="random", sharpness=1.0, next_sharpness=1.0, values=(2, 3)).world(0)
    contexts = world.contexts[::97]
    p = np.exp(world.log_posterior(contexts)).reshape(-1, 2, 3)
    expected = np.concatenate([centred(np.log(p.sum(axis=2))), centred(np.log(p.sum(axis=1)))], axis=1)
    np.testing.assert_allclose(marginal_posteriors(world, contexts), expected, atol=1e-10)


@pytest.mark.parametrize("values", [(2, 2, 2), (3, 3)])
def test_where_concepts_separate_the_two_targets_are_one(values):
    """p(c|x) is then the product of the marginals: each target is an exact linear function of the other."""
    place = Place(kind="separate", sharpness=1.5, next_sharpness=0.1, values=values)
    point = phase_point(place, 0)
    assert point.shared == pytest.approx(1, abs=1e-9)
    assert point.marginal == pytest.approx(point.regime.r_squared, abs=1e-9)
    world = place.world(0)
    joint, marginal = centred(world.log_posterior(world.contexts)), marginal_posteriors(world, world.contexts)
    lifts = np.concatenate([world.prior.lifting(i) for i in range(len(values))], axis=1)
    np.testing.assert_allclose(marginal @ lifts.T, joint, atol=1e-9)
    means = lifts / lifts.sum(axis=0)
    np.testing.assert_allclose(joint @ means, marginal, atol=1e-9)


@pytest.mark.parametrize("kind", ["random", "telling"])
def test_elsewhere_they_are_not(kind):
    point = phase_point(Place(kind=kind, sharpness=1.0, next_sharpness=0.1), 0)
    assert point.shared < 0.999
    assert abs(point.marginal - point.regime.r_squared) > 0.01


def test_a_next_token_that_names_one_concept_is_marginal_and_one_that_names_all_is_joint():
    rng = np.random.default_rng(31)
    prior = ConceptPrior.random(chain(3), rng)
    told = TokenWorld.telling(prior, rng, noise=1e-12)
    one = replace(told, log_next=np.log((1 - 1e-12) * prior.lifting(1) + 0.5e-12))
    promised = {}
    for name, world in (("all", told), ("one", one)):
        contexts = world.contexts
        p_x = np.exp(world.log_joint(contexts)).sum(axis=1)
        logs = world.log_predictive(contexts)
        ratios, marginal = logs[:, 1:] - logs[:, :1], marginal_posteriors(world, contexts)
        promised[name] = regime(world).r_squared, population_r_squared(marginal, ratios, p_x)
    assert promised["all"][0] == pytest.approx(1, abs=1e-6)
    assert promised["all"][1] < 0.99
    assert promised["one"][0] < 0.99
    assert promised["one"][1] == pytest.approx(1, abs=1e-6)


def test_a_population_r_squared_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(32)
    x, y, p = rng.normal(size=(300, 4)), rng.normal(size=(300, 3)), rng.dirichlet(np.ones(300))
    y[:, 0] += x[:, 1]
    left = y - LinearRegression().fit(x, y, sample_weight=p).predict(x)
    expected = 1 - (p @ left**2).sum() / (p @ (y - p @ y) ** 2).sum()
    assert population_r_squared(x, y, p) == pytest.approx(expected, abs=1e-10)


def test_the_promise_over_the_plane():
    """More noise in the next token: less. The same seed has one world at every sharpness."""
    by_noise = [phase_point(Place(kind="telling", sharpness=1.0, next_sharpness=n), 0) for n in (0.3, 0.1, 0.01)]
    promised = [point.regime.r_squared for point in by_noise]
    assert promised == sorted(promised)
    decoded = [point.decoded_joint for point in by_noise]
    assert decoded == sorted(decoded)
    assert by_noise[0].regime.context_entropy == by_noise[2].regime.context_entropy
    assert by_noise[0].shared == by_noise[2].shared  # of the context alone
    sharper = phase_point(Place(kind="telling", sharpness=2.0, next_sharpness=0.1), 0)
    assert sharper.regime.context_entropy < by_noise[1].regime.context_entropy


def test_a_categorical_world_has_its_own_point():
    point = phase_point(Place(kind="telling", sharpness=1.0, next_sharpness=0.01, values=(3, 3)), 0)
    assert 0.9 < point.regime.r_squared < 1
    assert point.regime.r_squared > point.marginal


def test_few_directions_hold_a_part_and_one_less_than_the_configurations_hold_all():
    world = direct_world(0.03, 0)
    ceilings = [linear_ceiling(world, features) for features in range(1, 10)]
    assert ceilings == sorted(ceilings)
    assert ceilings[5] < 1 - 1e-3
    np.testing.assert_allclose(ceilings[6:], 1, atol=1e-12)


def test_no_model_of_few_features_passes_the_ceiling():
    recipe = Recipe(steps=300, rows=40_000, test_rows=6_000)
    for features in (1, 3):
        trial = width_trial(features=features, noise=0.03, seed=0, recipe=recipe)
        assert trial.features == features
        assert 0 < trial.trained.features < trial.ceiling + 0.02  # 3000 drawn contexts, not all


def test_places_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="share of random next tokens"):
        Place(kind="telling", sharpness=1.0, next_sharpness=1.0)
    with pytest.raises(ConfigError, match="both are above 0"):
        Place(kind="random", sharpness=0.0, next_sharpness=1.0)
