"""Trials in known worlds, spread over the cluster: one Ray task for each world and model.

    trials = direct_test((0.3, 0.01), seeds=5)
    summary = summarise(trials)         # per noise level: means over seeds with 95 % intervals

What can go wrong: an interval over fewer than three seeds says nothing; one seed has none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from lrh_ray.analyses.worlds.concepts import ConceptPrior, chain, random_graph
from lrh_ray.analyses.worlds.direct import DirectTrial, direct_trial
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.masked import MaskedRecipe, MaskedTrial, masked_trial
from lrh_ray.records import Plain
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class DirectTask:
    """(noise, seed) -> trial, on a worker."""

    recipe: Recipe

    def __call__(self, place: tuple[float, int]) -> DirectTrial:
        noise, seed = place
        return direct_trial(noise=noise, seed=seed, recipe=self.recipe)


def direct_test(
    noises: Sequence[float], *, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[DirectTrial]:
    """A1 (`analyses.worlds.direct`) for every noise level and seed, in this order."""
    places = [(noise, seed) for noise in noises for seed in range(seeds)]
    with connected(address):
        return sample(places, DirectTask(recipe=recipe or Recipe()))


@dataclass(frozen=True, kw_only=True)
class MaskedTask:
    """(number of bits, seed) -> trial in the masked-bit world, on a worker."""

    num_concepts: int
    edges_per_concept: float | None
    recipe: MaskedRecipe

    def __call__(self, place: tuple[int, int]) -> MaskedTrial:
        num_bits, seed = place
        rng = np.random.default_rng([seed, 0])
        edges, concepts = self.edges_per_concept, self.num_concepts
        graph = chain(concepts) if edges is None else random_graph(concepts, edges, rng)
        return masked_trial(ConceptPrior.random(graph, rng), num_bits=num_bits, seed=seed, recipe=self.recipe)


def masked_test(
    bits: Sequence[int],
    *,
    seeds: int,
    num_concepts: int = 3,
    edges_per_concept: float | None = None,
    recipe: MaskedRecipe | None = None,
    address: str = EMBEDDED,
) -> list[MaskedTrial]:
    """A2 (`analyses.worlds.masked`) for every number of bits and seed; None for edges: the concepts are a chain."""
    task = MaskedTask(num_concepts=num_concepts, edges_per_concept=edges_per_concept, recipe=recipe or MaskedRecipe())
    with connected(address):
        return sample([(number, seed) for number in bits for seed in range(seeds)], task)


def summarise(trials: Sequence[DirectTrial]) -> list[dict[str, Plain]]:
    """Per noise level, in the order of the trials: each number's mean over seeds, with its 95 % interval."""
    rows: list[dict[str, Plain]] = []
    for noise in dict.fromkeys(trial.noise for trial in trials):
        own = [trial for trial in trials if trial.noise == noise]
        of: Mapping[str, Callable[[DirectTrial], float]] = {
            "error": lambda trial: trial.error,
            "population": lambda trial: trial.population,
            "logits": lambda trial: trial.trained.logits,
            "features": lambda trial: trial.trained.features,
            "divergence": lambda trial: trial.trained.divergence,
        }
        numbers: dict[str, Plain] = {name: over_seeds([value(trial) for trial in own]) for name, value in of.items()}
        controls: dict[str, Plain] = {
            name: over_seeds([trial.controls[name] for trial in own]) for name in own[0].controls
        }
        rows.append({"noise": noise, "seeds": len(own), **numbers, "controls": controls})
    return rows


def over_seeds(values: Sequence[float]) -> dict[str, Plain]:
    """Mean, and the interval of Student's t over independent seeds."""
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = float(t.ppf((1 + LEVEL) / 2, num - 1) * np.std(values, ddof=1) / np.sqrt(num))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
