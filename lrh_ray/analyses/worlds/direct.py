"""A1, the direct test of Theorem 3.1 that its paper does not make: are a trained model's features log-posteriors?

One trial draws a world whose next token tells the concepts up to `noise`, trains a model, and reads it beside what the
theorem promises for that very world (the population R^2, exact) and beside what costs nothing (untrained weights, the
bare input bits, a model of permuted next tokens, shuffled rows).

    trial = direct_trial(noise=0.01, seed=0, recipe=Recipe())
    trial.trained.logits, trial.population, trial.controls["bits"]
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.worlds.concepts import ConceptPrior, chain
from lrh_ray.analyses.worlds.learning import Reading, Recipe, reading, train, untrained
from lrh_ray.analyses.worlds.theorem import regime
from lrh_ray.analyses.worlds.tokens import TokenWorld

CONCEPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectTrial:
    """One world and one model. `controls` are R^2 of the decoding direction, features -> log p(c|x)."""

    noise: float
    seed: int
    error: float
    """epsilon of the world."""
    population: float
    """R^2 of log p(c|x) -> log p(y|x), which a perfect model would show."""
    trained: Reading
    controls: Mapping[str, float]


def direct_world(noise: float, seed: int) -> TokenWorld:
    """Three binary concepts in a chain, four context tokens of eight values, and their own next token each."""
    rng = np.random.default_rng([seed, 0])
    return TokenWorld.telling(ConceptPrior.random(chain(CONCEPTS), rng), rng, noise=noise)


def direct_trial(*, noise: float, seed: int, recipe: Recipe) -> DirectTrial:
    """Train two networks (one on permuted next tokens) and read them; about 20 seconds of one core."""
    world = direct_world(noise, seed)
    here, network = regime(world), train(world, recipe, seed)
    permuted = train(world, recipe, seed, permuted=True)
    return DirectTrial(
        noise=noise,
        seed=seed,
        error=here.error,
        population=here.r_squared,
        trained=reading(world, network, recipe, seed),
        controls={
            "untrained weights": reading(world, untrained(world, recipe, seed), recipe, seed).features,
            "input bits": reading(world, network, recipe, seed, "bits").features,
            "permuted next tokens": reading(world, permuted, recipe, seed).features,
            "shuffled rows": reading(world, network, recipe, seed, "shuffled rows").features,
        },
    )
