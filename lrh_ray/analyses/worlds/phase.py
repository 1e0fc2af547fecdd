"""Where Theorem 3.1 holds: its promise over worlds whose context and next token tell more or less of the concepts.

A world lies at a point of a plane: how sharply the context tells the concepts, and how sharply the next token does
(softmax scores times a factor, or one next token for every configuration up to some noise). `phase_point` gives,
exactly and without training, where that is in the theorem's own terms (epsilon, total variation, H(c|x)) and how much
of a perfect model is a linear map of

- the *joint* log-posterior of all configurations, which Theorem 3.1 of 2503.08980 speaks of, and
- the *marginal* log-posteriors of the single concepts side by side, which its successor does (ConCA, 2601.20420,
  theorem 2.2).

The other direction is what a reader of the model gets: either target from the perfect model's log-ratios.

    point = phase_point(Place(kind="telling", sharpness=1.0, next_sharpness=0.01), seed=0)
    point.regime.r_squared, point.marginal, point.regime.error

Neither target is a function of the other's linear map in general: log p(c_i | x) is the logarithm of a sum. Two facts
are exact, and tested. Where concepts are independent given the context (`kind="separate"`), the joint log-posterior is
the sum of the marginal ones, so that both promise the same. And where the next token tells one concept alone, the
marginals promise everything and the joint does not.

What can go wrong: a high R^2 at a flat context may be of little use: there is little to explain. `context_entropy`
beside it tells.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import log_softmax

from lrh_ray.analyses.layouts import Contexts
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.analyses.worlds.concepts import ConceptPrior, Graph, chain
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import Reading, Recipe, reading, train
from lrh_ray.analyses.worlds.theorem import Regime, population_r_squared, regime
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Rows64

Kind: TypeAlias = Literal["random", "telling", "separate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A point of the diagram.

    `random`: next tokens with random scores times `next_sharpness`. `telling`: a next token for every configuration,
    `next_sharpness` of the time any (its noise). `separate`: as `telling`, with independent concepts each of which has
    its own tokens of the context.
    """

    kind: Kind
    sharpness: float
    """Factor of the scores of context tokens: at .1 they tell next to nothing, at 4 nearly all."""
    next_sharpness: float
    values: tuple[int, ...] = (2, 2, 2)
    """Number of values of each concept; more than 2 is a categorical concept."""

    def __post_init__(self) -> None:
        if self.sharpness <= 0 or self.next_sharpness <= 0:
            raise ConfigError(
                f"sharpness is {self.sharpness!r} and next_sharpness {self.next_sharpness!r}; both are above 0, for at "
                f"0 nothing depends on the concepts and there is nothing to explain."
            )
        if self.kind != "random" and not 0 < self.next_sharpness < 1:
            raise ConfigError(
                f"next_sharpness is {self.next_sharpness!r}; in a {self.kind} world it is the share of random next "
                f"tokens, above 0 and below 1."
            )

    def world(self, seed: int) -> TokenWorld:
        """Concepts in a chain; the same seed has the same concepts and scores at every sharpness."""
        rng = np.random.default_rng([seed, 0])
        unconnected: Graph = ((),) * len(self.values)
        graph = unconnected if self.kind == "separate" else chain(len(self.values))
        prior = ConceptPrior.random(graph, rng, self.values)
        if self.kind == "random":
            return TokenWorld.random(prior, rng, sharpness=self.sharpness, next_sharpness=self.next_sharpness)
        world = TokenWorld.telling(prior, rng, noise=self.next_sharpness, sharpness=self.sharpness)
        return _separated(world, self.sharpness, rng) if self.kind == "separate" else world


def _separated(world: TokenWorld, sharpness: float, rng: np.random.Generator) -> TokenWorld:
    """The world with context tokens that depend on one concept each, in turn."""
    T, _, V = world.log_context.shape
    own = world.prior.configurations
    shown = []
    for t in range(T):
        values = own[:, t % own.shape[1]]
        shown.append(log_softmax(sharpness * rng.normal(size=(int(values.max()) + 1, V)), axis=1)[values])
    return replace(world, log_context=np.stack(shown))


@dataclass(frozen=True, kw_only=True, slots=True)
class PhasePoint:
    """One world of the diagram. All R^2 are exact: over every context, with its probability."""

    place: Place
    seed: int
    regime: Regime
    """`regime.r_squared` is the promise for the joint target."""
    marginal: float
    """Concatenated marginal log-posteriors -> the log-ratios of the next token."""
    decoded_joint: float
    """Log-ratios of the next token -> joint log-posterior: what a reader of a perfect model gets."""
    decoded_marginal: float
    """Log-ratios of the next token -> marginal log-posteriors."""
    shared: float
    """Joint log-posterior -> marginal ones: 1 where the two targets ask the same."""


def phase_point(place: Place, seed: int) -> PhasePoint:
    """Sums over every context; memory 8^4 contexts times next tokens times configurations."""
    world = place.world(seed)
    contexts = world.contexts
    p_x = np.exp(world.log_joint(contexts)).sum(axis=1)
    joint, marginal = centred(world.log_posterior(contexts)), marginal_posteriors(world, contexts)
    perfect = centred(world.log_predictive(contexts))
    ratios = perfect[:, 1:] - perfect[:, :1]
    return PhasePoint(
        place=place,
        seed=seed,
        regime=regime(world),
        marginal=population_r_squared(marginal, ratios, p_x),
        decoded_joint=population_r_squared(perfect, joint, p_x),
        decoded_marginal=population_r_squared(perfect, marginal, p_x),
        shared=population_r_squared(joint, marginal, p_x),
    )


def marginal_posteriors(world: TokenWorld, contexts: Contexts) -> Rows64:
    """Centred log p(c_i | x) of every concept side by side [N, sum of the numbers of values]."""
    p = np.exp(world.log_posterior(contexts))
    concepts = range(world.prior.configurations.shape[1])
    return np.concatenate([centred(np.log(p @ world.prior.lifting(i))) for i in concepts], axis=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthTrial:
    """A trained model of `features` features in the world of A1 (`direct`), beside what so many could hold."""

    features: int
    noise: float
    seed: int
    trained: Reading
    ceiling: float
    """The R^2 that no `features` directions can exceed when the log-posterior is read from them linearly."""


def width_trial(*, features: int, noise: float, seed: int, recipe: Recipe) -> WidthTrial:
    """Below one feature less than there are configurations, the log-posterior cannot fit; about 10 seconds."""
    world, recipe = direct_world(noise, seed), replace(recipe, features=features)
    trained = reading(world, train(world, recipe, seed), recipe, seed)
    return WidthTrial(
        features=features, noise=noise, seed=seed, trained=trained, ceiling=linear_ceiling(world, features)
    )


def linear_ceiling(world: TokenWorld, features: int) -> float:
    """The share of the variance of the centred log-posterior in its leading principal directions; 1 from C - 1 on.

    A linear map from D features has rank D at most, so its predictions explain no more (Eckart and Young).
    """
    contexts = world.contexts
    p_x = np.exp(world.log_joint(contexts)).sum(axis=1)
    posterior = centred(world.log_posterior(contexts))
    offset = posterior - p_x @ posterior
    values = Spectrum.of((offset * p_x[:, None]).T @ offset).values[::-1]
    return float(values[:features].sum() / values.sum())
