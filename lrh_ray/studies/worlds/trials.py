"""Trials in known worlds, spread over the cluster: one Ray task for each world and model.

    trials = direct_test((0.3, 0.01), seeds=5)
    trials = sphere_test((10.0, 50.0), seeds=3)

Every test is a list of places (a noise level, a concentration, a point of the phase diagram) times seeds, and returns
its trials in this order, whatever the number of workers.

What can go wrong: workers of one thread and a driver of several give networks that differ by rounding, for a sum over
rows then has another order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import numpy as np

from lrh_ray.analyses.worlds.agreement import AgreementTrial, agreement_trial
from lrh_ray.analyses.worlds.bound import BoundTrial, bound_trial
from lrh_ray.analyses.worlds.concepts import ConceptPrior, chain, random_graph
from lrh_ray.analyses.worlds.direct import DirectTrial, direct_trial
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.masked import MaskedRecipe, MaskedTrial, masked_trial
from lrh_ray.analyses.worlds.phase import Kind, PhasePoint, Place, WidthTrial, phase_point, width_trial
from lrh_ray.analyses.worlds.sphere_learning import Labels, SphereRecipe, SphereTrial, sphere_trial
from lrh_ray.analyses.worlds.steering import SteeringTrial, steering_trial
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample

Trial = TypeVar("Trial")
Where = TypeVar("Where")


def _at_every(
    places: Iterable[Where], seeds: int, task: Callable[[tuple[Where, int]], Trial], address: str
) -> list[Trial]:
    """A trial for every place and seed."""
    with connected(address):
        return sample(list(product(places, range(seeds))), task)


@dataclass(frozen=True, kw_only=True)
class NoiseTask(Generic[Trial]):
    """(noise, seed) -> trial in the world of A1 (`analyses.worlds.direct`), on a worker."""

    trial: Callable[..., Trial]
    recipe: Recipe

    def __call__(self, place: tuple[float, int]) -> Trial:
        noise, seed = place
        return self.trial(noise=noise, seed=seed, recipe=self.recipe)


def direct_test(
    noises: Sequence[float], *, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[DirectTrial]:
    """A1 (`analyses.worlds.direct`) for every noise level and seed."""
    return _at_every(noises, seeds, NoiseTask(trial=direct_trial, recipe=recipe or Recipe()), address)


def agreement_test(
    noises: Sequence[float], *, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[AgreementTrial]:
    """Two training runs of one world (`analyses.worlds.agreement`), for every noise level and seed."""
    return _at_every(noises, seeds, NoiseTask(trial=agreement_trial, recipe=recipe or Recipe()), address)


def steering_test(
    noises: Sequence[float], *, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[SteeringTrial]:
    """Corollary 4.2 (`analyses.worlds.steering`) for every noise level and seed."""
    return _at_every(noises, seeds, NoiseTask(trial=steering_trial, recipe=recipe or Recipe()), address)


def bound_test(
    noises: Sequence[float], *, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[BoundTrial]:
    """Probe log-odds against the exact ones (`analyses.worlds.bound`), for every noise level and seed."""
    return _at_every(noises, seeds, NoiseTask(trial=bound_trial, recipe=recipe or Recipe()), address)


@dataclass(frozen=True, kw_only=True)
class WidthTask:
    """(number of features, seed) -> trial in the world of A1, on a worker."""

    noise: float
    recipe: Recipe

    def __call__(self, place: tuple[int, int]) -> WidthTrial:
        features, seed = place
        return width_trial(features=features, noise=self.noise, seed=seed, recipe=self.recipe)


def width_test(
    features: Sequence[int], *, noise: float, seeds: int, recipe: Recipe | None = None, address: str = EMBEDDED
) -> list[WidthTrial]:
    """Models of few and of many features (`analyses.worlds.phase`) for every such number and seed."""
    return _at_every(features, seeds, WidthTask(noise=noise, recipe=recipe or Recipe()), address)


def phase_places(
    kind: Kind, sharpness: Sequence[float], next_sharpness: Sequence[float], values: tuple[int, ...] = (2, 2, 2)
) -> list[Place]:
    """A grid of the phase diagram, the sharpness of the next token running fastest."""
    return [
        Place(kind=kind, sharpness=x, next_sharpness=y, values=values) for x, y in product(sharpness, next_sharpness)
    ]


def phase_test(places: Sequence[Place], *, seeds: int, address: str = EMBEDDED) -> list[PhasePoint]:
    """The phase diagram (`analyses.worlds.phase`), exact, for every place and seed."""
    return _at_every(places, seeds, _phase_point, address)


def _phase_point(place: tuple[Place, int]) -> PhasePoint:
    return phase_point(*place)


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
    return _at_every(bits, seeds, task, address)


@dataclass(frozen=True, kw_only=True)
class SphereTask:
    """(concentration, seed) -> trial in a world of clusters on a sphere, on a worker."""

    labels: Labels
    dim: int
    num_classes: int
    recipe: SphereRecipe

    def __call__(self, place: tuple[float, int]) -> SphereTrial:
        concentration, seed = place
        return sphere_trial(
            concentration=concentration,
            seed=seed,
            recipe=self.recipe,
            labels=self.labels,
            dim=self.dim,
            num_classes=self.num_classes,
        )


def sphere_test(
    concentrations: Sequence[float],
    *,
    seeds: int,
    labels: Labels = "class",
    dim: int = 5,
    num_classes: int = 100,
    recipe: SphereRecipe | None = None,
    address: str = EMBEDDED,
) -> list[SphereTrial]:
    """World (d) (`analyses.worlds.sphere_learning`) for every concentration and seed."""
    task = SphereTask(labels=labels, dim=dim, num_classes=num_classes, recipe=recipe or SphereRecipe())
    return _at_every(concentrations, seeds, task, address)
