"""Steering as a check of Corollary 4.2: does a concept's direction in feature space edit that concept's posterior?

By the corollary, features are f(x) = A log p(c|x) + b, so that adding

    alpha A~_i [1, -1]^T,   A~_i = A B_i,   B_i lifts values of concept i to configurations (0 or 1)

is the same as adding alpha to log p(c_i = 0 | x) and taking it from log p(c_i = 1 | x), with everything else left as
it is. In a world that edit can be made exactly: p(c|x) is multiplied by exp(alpha) or exp(-alpha), and p(y|x) follows.
A is fitted on one half of the contexts; on others the steered model's next tokens are held against the edited world's.

    direction = concept_direction(world, contexts, features, concept=0)
    found = steer(world, contexts, features, vectors, direction, concept=0, seed=0)
    found.slope, found.low, found.high, found.null

A concept's *log-odds* as the next token shows them: log of sum_y q(y) p(c_i = 0 | y) over the same with c_i = 1.
`slope` is the dose-response: change of these in the model for each unit of change in the edited world, over contexts
and doses; `doses` has the mean change at each of them.

What can go wrong: a model cannot be steered better than the theorem holds in its world. The same procedure on the exact
log p(y|x) as features (`perfect`) says how well that is. And a random direction of the same length in the few
dimensions that matter has a slope too: the null is a distribution, not 0.

Legend: N contexts, K doses, Y next tokens, D features, C configurations.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from lrh_ray.analyses.intervals import DocumentBootstrap, percentile_interval
from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.layouts import Contexts
from lrh_ray.analyses.linear_map import fit_linear
from lrh_ray.analyses.worlds.agreement import identified_directions
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import RIDGE, Recipe, encoded, next_vectors, train
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred
from lrh_ray.layouts import Feature64, Rows64

DOSES = np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
"""alpha, nats: log-odds move by twice as much."""
STEERED = 1000
"""Contexts that a trial steers."""
NULL_DIRECTIONS = 100
DRAWS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Dose:
    """Change of the concept's log-odds, nats, mean over contexts."""

    asked: float
    """In the edited world."""
    found: float
    """In the steered model."""
    null: float
    """95 % point of |found| over the random directions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """Steered next tokens beside those of the edited world."""

    slope: float
    """Change of the concept's log-odds for each unit that the edit asks; 1 is exact."""
    low: float
    high: float
    """95 % interval of the slope over contexts (percentiles of a bootstrap)."""
    explained: float
    """1 - sum (change of q - change of p)^2 / sum (change of p)^2, over contexts, doses and next tokens."""
    leakage: float
    """Root mean square of the change of the other concepts' log-odds that the edit does not ask, in units of the change
    that it asks of the steered one; NaN where there is no other."""
    null: float
    """95 % point of |slope| over random directions of the same length."""
    doses: tuple[Dose, ...]
    """What each of `DOSES` does."""


def concept_direction(world: TokenWorld, contexts: Contexts, features: Rows64, concept: int) -> Feature64:
    """A~_i [1, -1]^T [D] for the first two values of a concept, by least squares of features on log p(c|x)."""
    posterior = centred(world.log_posterior(contexts))
    shift = np.concatenate([posterior.mean(axis=0), features.mean(axis=0)])
    state = JointMoments.of(posterior, features, shift=shift, groups=np.zeros(len(features), np.int64))
    return np.asarray(_contrast(world, concept) @ fit_linear(state.joint(), RIDGE).weights)


def edited(world: TokenWorld, contexts: Contexts, concept: int, doses: np.ndarray) -> np.ndarray:
    """p(y|x) [K, N, Y] after `doses` [K] are added to log p(c_i = 0 | x) and taken from log p(c_i = 1 | x)."""
    shifts = doses[:, None, None] * _contrast(world, concept)
    return np.asarray(softmax(world.log_posterior(contexts) + shifts, axis=2) @ np.exp(world.log_next))


def steer(
    world: TokenWorld,
    contexts: Contexts,
    features: Rows64,
    vectors: np.ndarray,
    direction: Feature64,
    *,
    concept: int,
    seed: int,
) -> Steering:
    """Add `DOSES` times a direction to features [N, D] of contexts; next tokens are softmax(features . vectors [Y, D]).

    `seed` draws contexts for the interval, and the directions of the null.
    """
    none, num_concepts = np.zeros(1), world.prior.configurations.shape[1]
    p, p_before = edited(world, contexts, concept, DOSES), edited(world, contexts, concept, none)
    q, q_before = _steered(features, vectors, direction, DOSES), _steered(features, vectors, direction, none)
    asked = [_log_odds(world, p, i) - _log_odds(world, p_before, i) for i in range(num_concepts)]
    found = [_log_odds(world, q, i) - _log_odds(world, q_before, i) for i in range(num_concepts)]
    own, others = asked[concept], [found[i] - asked[i] for i in range(num_concepts) if i != concept]
    top, bottom = (found[concept] * own).sum(axis=0), (own**2).sum(axis=0)
    weights = DocumentBootstrap(draws=DRAWS, seed=seed).weights(len(contexts))
    interval = percentile_interval((weights @ top / (weights @ bottom))[:, None])
    before = _log_odds(world, q_before, concept)
    chance = [
        _log_odds(world, _steered(features, vectors, one, DOSES), concept) - before
        for one in _null_directions(vectors, direction, np.random.default_rng([seed, 5]))
    ]
    null = [(change * own).sum() / bottom.sum() for change in chance]
    by_chance = np.quantile(np.abs([change.mean(axis=1) for change in chance]), 0.95, axis=0)
    return Steering(
        slope=float(top.sum() / bottom.sum()),
        low=float(interval.low[0]),
        high=float(interval.high[0]),
        explained=float(1 - ((q - q_before - p + p_before) ** 2).sum() / ((p - p_before) ** 2).sum()),
        leakage=float(np.sqrt(np.square(others).mean() / np.square(own).mean())) if others else math.nan,
        null=float(np.quantile(np.abs(null), 0.95)),
        doses=tuple(
            Dose(asked=float(own[k].mean()), found=float(found[concept][k].mean()), null=float(by_chance[k]))
            for k in range(len(DOSES))
        ),
    )


def _contrast(world: TokenWorld, concept: int) -> np.ndarray:
    """B_i [1, -1]^T [C]: 1 for configurations with the concept's first value, -1 with its second."""
    lifting = world.prior.lifting(concept)
    return np.asarray(lifting[:, 0] - lifting[:, 1])


def _steered(features: Rows64, vectors: np.ndarray, direction: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """The model's p(y|x) [K, N, Y]."""
    return np.asarray(softmax(features @ vectors.T + doses[:, None, None] * (vectors @ direction), axis=2))


def _log_odds(world: TokenWorld, q: np.ndarray, concept: int) -> np.ndarray:
    """First against second value of a concept, as next tokens q [K, N, Y] show them: [K, N]."""
    shares = q @ (world.next_posterior @ world.prior.lifting(concept))
    return np.asarray(np.log(shares[..., 0] / shares[..., 1]))


def _null_directions(vectors: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random directions [R, D] in the span that next tokens depend on, as long there as `direction` is."""
    span = identified_directions(vectors)
    drawn = rng.standard_normal((NULL_DIRECTIONS, len(span)))
    length = np.linalg.norm(span @ direction)
    return np.asarray(length * drawn / np.linalg.norm(drawn, axis=1, keepdims=True) @ span)


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringTrial:
    """One world, its concepts steered in a trained model and in a perfect one, whose features are log p(y|x)."""

    noise: float
    seed: int
    trained: tuple[Steering, ...]
    perfect: tuple[Steering, ...]


def steering_trial(*, noise: float, seed: int, recipe: Recipe) -> SteeringTrial:
    """Train a model of the world of A1 (`direct`) and steer each of its concepts; about 15 seconds of one core."""
    world = direct_world(noise, seed)
    network = train(world, recipe, seed)
    contexts, _, _ = world.draw(recipe.test_rows, np.random.default_rng([seed, 4]))
    exact = centred(world.log_predictive(contexts))
    return SteeringTrial(
        noise=noise,
        seed=seed,
        trained=steer_all(world, contexts, encoded(world, network, contexts), next_vectors(network), seed),
        perfect=steer_all(world, contexts, exact, np.eye(exact.shape[1]), seed),
    )


def steer_all(
    world: TokenWorld, contexts: Contexts, features: Rows64, vectors: np.ndarray, seed: int
) -> tuple[Steering, ...]:
    """Every concept: its direction from one half of the contexts, the effect on at most `STEERED` of the other."""
    half = len(contexts) // 2
    rest = slice(half, half + STEERED)
    found = []
    for concept in range(world.prior.configurations.shape[1]):
        direction = concept_direction(world, contexts[:half], features[:half], concept)
        found.append(steer(world, contexts[rest], features[rest], vectors, direction, concept=concept, seed=seed))
    return tuple(found)
