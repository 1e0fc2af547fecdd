"""The hidden-Markov language: its beliefs against brute force, and what they promise."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import logsumexp

from lrh_ray.analyses.worlds.hidden_markov import HiddenMarkovWorld
from lrh_ray.errors import ConfigError


@pytest.fixture(scope="module")
def world():
    return HiddenMarkovWorld.random(np.random.default_rng(1), values=(2, 3), vocabulary=5, persistence=0.7)


def brute_force(world, tokens):
    """Log p(c_T | x_1 .. x_T) by summing over every path of configurations."""
    num = len(world.start)
    joint = np.full(num, -np.inf)
    for path in product(range(num), repeat=len(tokens)):
        log_p = np.log(world.start[path[0]]) + sum(np.log(world.transition[a, b]) for a, b in pairwise(path))
        log_p += sum(world.log_emission[c, x] for c, x in zip(path, tokens, strict=True))
        joint[path[-1]] = np.logaddexp(joint[path[-1]], log_p)
    return joint - logsumexp(joint)


def test_filtered_beliefs_equal_brute_force(world):
    tokens, _ = world.draw(3, 4, np.random.default_rng(2))
    beliefs = world.filtered(tokens)
    for row in range(3):
        for last in range(4):
            assert beliefs[row, last] == pytest.approx(brute_force(world, tokens[row, : last + 1]), abs=1e-11)


def test_predictions_equal_brute_force(world):
    """p(x_3 | x_1, x_2) = p(x_1 .. x_3) / p(x_1, x_2), both from paths."""
    tokens = np.array([[3, 1]])
    predicted = np.exp(world.log_predictive(world.filtered(tokens))[0, -1])
    belief = np.exp(brute_force(world, [3, 1]))
    assert predicted == pytest.approx(belief @ world.transition @ np.exp(world.log_emission), abs=1e-12)
    assert predicted.sum() == pytest.approx(1)


def test_marginals_are_sums_of_the_joint_belief(world):
    beliefs = world.filtered(world.draw(4, 6, np.random.default_rng(3))[0])
    second = np.exp(world.marginals(beliefs, 1))
    assert second.shape == (4, 6, 3)
    assert second.sum(axis=-1) == pytest.approx(1)
    assert second[..., 2] == pytest.approx(np.exp(beliefs)[..., world.configurations[:, 1] == 2].sum(axis=-1))


def test_the_start_is_stationary(world):
    assert world.start @ world.transition == pytest.approx(world.start, abs=1e-12)
    _, configurations = world.draw(20_000, 3, np.random.default_rng(4))
    shares = np.bincount(configurations[:, 2], minlength=6) / 20_000
    assert shares == pytest.approx(world.start, abs=0.012)  # three standard errors of the largest share


def test_beliefs_are_calibrated(world):
    """Of all moments at which a configuration was believed with some probability, that share had it."""
    tokens, configurations = world.draw(3000, 8, np.random.default_rng(5))
    believed = np.exp(world.filtered(tokens)[:, -1])
    happened = np.eye(6)[configurations[:, -1]]
    sure = believed > 0.5
    assert happened[sure].mean() == pytest.approx(believed[sure].mean(), abs=0.03)


def test_tokens_that_tell_nothing_leave_the_prior():
    dull = HiddenMarkovWorld.random(np.random.default_rng(6), sharpness=0.0)
    beliefs = dull.filtered(dull.draw(2, 5, np.random.default_rng(7))[0])
    assert np.exp(beliefs) == pytest.approx(np.broadcast_to(dull.start, beliefs.shape), abs=1e-12)


def test_the_same_seed_gives_the_same_world_and_documents():
    twins = [HiddenMarkovWorld.random(np.random.default_rng(8)) for _ in range(2)]
    drawn = [twin.draw(3, 5, np.random.default_rng(9))[0] for twin in twins]
    assert np.array_equal(*drawn)
    assert np.array_equal(twins[0].log_emission, twins[1].log_emission)


@pytest.mark.parametrize(
    ("setting", "told"),
    [({"values": (2, 1)}, "values"), ({"vocabulary": 1}, "vocabulary"), ({"persistence": 1.0}, "persistence")],
)
def test_impossible_worlds_are_refused(setting, told):
    with pytest.raises(ConfigError, match=told):
        HiddenMarkovWorld.random(np.random.default_rng(0), **setting)
