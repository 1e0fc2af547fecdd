"""A0: the identity behind Theorem 3.1 is exact in every world; how much of it is linear is a property of the world."""

import numpy as np
import pytest
from scipy.special import logsumexp

from lrh_ray.analyses.worlds import (
    ConceptPrior,
    TokenWorld,
    centred,
    chain,
    diversity,
    identity_error,
    random_graph,
    regime,
)
from lrh_ray.errors import ConfigError

SHARPNESS = [(0.5, 0.5), (1.0, 4.0), (2.0, 4.0)]


def world(seed=0, x=1.0, y=1.0, graph=None, values=None, **sizes):
    rng = np.random.default_rng(seed)
    prior = ConceptPrior.random(graph or chain(3), rng, values)
    return TokenWorld.random(prior, rng, sharpness=x, next_sharpness=y, **sizes)


def worlds():
    yield from (world(seed, x, y) for seed in range(3) for x, y in SHARPNESS)
    yield world(7, graph=random_graph(4, 2, np.random.default_rng(7)), context=3, vocabulary=6)
    yield world(8, graph=chain(2), values=(3, 4), context=3)
    for noise in (0.3, 0.01):
        rng = np.random.default_rng(9)
        yield TokenWorld.telling(ConceptPrior.random(chain(3), rng), rng, noise=noise)


@pytest.mark.parametrize("number", range(13))
def test_the_identity_is_exact_and_the_rank_is_one_less_than_the_configurations(number):
    here = list(worlds())[number]
    assert identity_error(here) < 1e-9
    found = diversity(here)
    assert found.rank == len(here.prior.log_probabilities) - 1
    assert found.largest_sum < 1e-12


def test_probabilities_are_those_of_enumeration():
    here = world(context=2, vocabulary=3, next_vocabulary=5)
    prior = np.exp(here.prior.log_probabilities)
    assert prior.sum() == pytest.approx(1, abs=1e-12)
    contexts = here.contexts
    assert len(np.unique(contexts, axis=0)) == 9
    likelihood = np.ones((9, 8))
    for t in range(2):
        for n in range(9):
            likelihood[n] *= np.exp(here.log_context[t][:, contexts[n, t]])
    joint = likelihood * prior
    assert joint.sum() == pytest.approx(1, abs=1e-12)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(here.log_posterior(contexts)), posterior, atol=1e-12)
    np.testing.assert_allclose(np.exp(here.log_predictive(contexts)), posterior @ np.exp(here.log_next), atol=1e-12)
    both = prior[:, None] * np.exp(here.log_next)
    np.testing.assert_allclose(here.next_posterior, (both / both.sum(axis=0)).T, atol=1e-12)


def test_concepts_follow_their_graph():
    """In a chain the first and the third concept are independent given the second; in a drawn table they are not."""
    prior = ConceptPrior.random(chain(3), np.random.default_rng(4))
    p = np.exp(prior.log_probabilities).reshape(2, 2, 2)
    given_second = p / p.sum(axis=(0, 2), keepdims=True)
    product = given_second.sum(axis=2, keepdims=True) * given_second.sum(axis=0, keepdims=True)
    np.testing.assert_allclose(given_second, product, atol=1e-12)
    assert np.abs(p - p.sum(axis=(1, 2))[:, None, None] * p.sum(axis=0)).max() > 1e-3
    share = prior.lifting(1).T @ np.exp(prior.log_probabilities)
    np.testing.assert_allclose(share, p.sum(axis=(0, 2)), atol=1e-12)


def test_draws_have_the_probabilities_of_the_world():
    here = world(context=2, vocabulary=3, next_vocabulary=4)
    x, y, c = here.draw(60_000, np.random.default_rng(0))
    counted = np.bincount(c, minlength=8) / len(c)
    np.testing.assert_allclose(counted, np.exp(here.prior.log_probabilities), atol=0.01)
    first = np.array([np.mean((x == context).all(axis=1)) for context in here.contexts])
    np.testing.assert_allclose(first, np.exp(logsumexp(here.log_joint(here.contexts), axis=1)), atol=0.01)
    expected = np.exp(here.prior.log_probabilities) @ np.exp(here.log_next)
    np.testing.assert_allclose(np.bincount(y, minlength=4) / len(y), expected, atol=0.01)


def test_the_expected_edges_of_a_random_graph():
    rng = np.random.default_rng(0)
    edges = [sum(map(len, random_graph(8, 2, rng))) for _ in range(300)]
    assert np.mean(edges) == pytest.approx(16, abs=0.5)
    assert random_graph(1, 3, rng) == ((),)


def test_informative_contexts_do_not_make_the_theorem_hold_and_telling_next_tokens_do():
    """The paper lets epsilon go to 0. By way of the context the residual grows; by way of the next token it goes."""
    by_context = [np.mean([regime(world(s, x, 4.0)).r_squared for s in range(5)]) for x in (0.5, 1.0, 2.0)]
    assert by_context[0] > by_context[1] > by_context[2]
    sharp = [regime(world(seed, 2.0, 4.0)) for seed in range(5)]
    assert np.mean([one.error for one in sharp]) < 0.05
    assert np.mean([one.r_squared for one in sharp]) == pytest.approx(0.75, abs=0.05)
    assert np.mean([one.residual_share for one in sharp]) > 0.5
    by_next = []
    for noise in (0.3, 0.1, 0.03, 0.01):
        rng = np.random.default_rng(0)
        by_next.append(regime(TokenWorld.telling(ConceptPrior.random(chain(3), rng), rng, noise=noise)))
    shares = [one.r_squared for one in by_next]
    assert shares == sorted(shares)
    assert shares[-1] > 0.95
    errors = [one.error for one in by_next]
    assert errors == sorted(errors, reverse=True)


def test_a_context_that_tells_nothing_leaves_the_prior():
    here = regime(world(x=0.0))
    prior = np.exp(world(x=0.0).prior.log_probabilities)
    assert here.context_error == pytest.approx(1 - prior.max())
    assert here.context_entropy == pytest.approx(-(prior * np.log(prior)).sum())


def test_the_centred_posterior_has_lost_its_constant():
    here = world()
    logs = here.log_posterior(here.contexts)
    np.testing.assert_allclose(centred(logs), centred(logs + 3), atol=1e-12)
    assert np.abs(centred(logs).sum(axis=1)).max() < 1e-10


def test_worlds_too_large_to_enumerate_are_refused():
    with pytest.raises(ConfigError, match="at most 16384"):
        ConceptPrior.random(chain(15), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="at least 2 values"):
        ConceptPrior.random(chain(2), np.random.default_rng(0), (2, 1))
    with pytest.raises(ConfigError, match="at least 0"):
        random_graph(3, -1, np.random.default_rng(0))
