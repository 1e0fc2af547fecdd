"""A1 in short: a small model of a world learns log-posteriors, its controls do not. `make prove-04` runs it whole."""

import numpy as np
import pytest
import torch

from lrh_ray.analyses.worlds.direct import direct_trial, direct_world
from lrh_ray.analyses.worlds.learning import Recipe, bits_of, held_out, train
from lrh_ray.analyses.worlds.theorem import regime
from lrh_ray.errors import ConfigError

SHORT = Recipe(steps=600, rows=60_000, test_rows=8_000)


@pytest.fixture(scope="module")
def trial():
    return direct_trial(noise=0.03, seed=0, recipe=SHORT)


def test_features_are_nearly_linear_in_the_log_posterior(trial):
    assert trial.trained.divergence < 0.05
    assert trial.trained.features > 0.85
    assert abs(trial.trained.logits - trial.population) < 0.06


def test_no_control_comes_near(trial):
    assert trial.trained.features - max(trial.controls.values()) > 0.2
    assert abs(trial.controls["shuffled rows"]) < 0.02
    assert set(trial.controls) == {"untrained weights", "input bits", "permuted next tokens", "shuffled rows"}


def test_the_theorem_promises_more_as_the_next_token_tells_more():
    promised = [regime(direct_world(noise, 0)).r_squared for noise in (0.3, 0.1, 0.03, 0.01)]
    assert promised == sorted(promised)


def test_one_seed_is_one_network_and_torchs_state_stays():
    world, quick = direct_world(0.1, 1), Recipe(steps=3, rows=1000)
    before = torch.random.get_rng_state()
    first, second, other = (train(world, quick, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.unembedding.weight, second.unembedding.weight)
    assert not torch.equal(first.unembedding.weight, other.unembedding.weight)


def test_bits_are_binary_digits():
    np.testing.assert_array_equal(bits_of(np.array([[5, 0], [1, 7]]), 8), [[1, 0, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1]])


def test_the_score_is_that_of_unseen_rows():
    rng = np.random.default_rng(0)
    assert held_out(rng.normal(size=(60, 25)), rng.normal(size=(60, 3))) < 0  # fitted on 30 rows of 25 features


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0; a recipe needs at least 1"),
        ({"batch": 1}, "batch is 1; a recipe needs at least 2"),
        ({"test_rows": 3}, "test_rows is 3; a recipe needs at least 4"),
        ({"features": -2}, "features is -2"),
        ({"rate": 0.0}, "rate is 0.0; a learning rate is a positive finite number"),
        ({"rate": float("nan")}, "rate is nan"),
    ],
)
def test_recipes_that_train_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**settings)
