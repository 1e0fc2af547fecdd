"""Settings of the worlds that are asked over seeds: which worlds, how many of each, and how long models learn."""

import math
from typing import Literal, TypeAlias, TypeVar

from lrh_ray.config import settings


@settings
class NoisyWorldConfig:
    """Three binary concepts in a chain, a context, a next token, and small models that learn to predict it (A1)."""

    kind: Literal["theorem", "agreement", "steering", "bound"]
    """What is asked of these worlds: whether features are log-posteriors, two runs agree, directions steer, or probes
    know the log-odds that latents are held against."""

    noises: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """How often the next token tells nothing of the concepts: the theorem is the limit 0."""

    seeds: int = 5
    """Worlds and models of each noise."""

    steps: int = 2500
    """Steps of training of each model."""

    contexts: int = 20_000
    """Fresh contexts on which a model is read: half to fit, half to score."""

    def __post_init__(self) -> None:
        _require_noises(self.noises)
        _require_counts(seeds=self.seeds, steps=self.steps)
        if self.contexts < 200:
            raise ValueError("contexts must be 200 or more: a linear map is fitted on half and scored on the other")


@settings
class PhaseWorldConfig:
    """Worlds over a plane: how sharply the context tells the concepts, and how noisily the next token does."""

    kind: Literal["phase"] = "phase"
    """What this world is."""

    worlds: Literal["telling", "separate"] = "telling"
    """Concepts in a chain that every token may tell, or independent ones, each with tokens of its own."""

    sharpness: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Factor of the scores of context tokens."""

    noises: tuple[float, ...] = (0.5, 0.3, 0.1, 0.03, 0.01, 0.003)
    """How often the next token tells nothing."""

    values: tuple[int, ...] = (2, 2, 2)
    """Number of values of each concept."""

    seeds: int = 5
    """Worlds at each point."""

    def __post_init__(self) -> None:
        if not _different(self.sharpness) or min(self.sharpness) <= 0:
            raise ValueError("sharpness must be different numbers above 0, for example [0.5, 1, 2]")
        _require_noises(self.noises)
        if not self.values or min(self.values) < 2 or self.seeds < 1:
            raise ValueError("values must name concepts of at least 2 values, for example [2, 2, 2]; seeds 1 or more")


@settings
class MaskedWorldConfig:
    """Binary concepts behind shuffled codes: a model predicts a hidden bit of several, a probe reads the concepts."""

    kind: Literal["masked"] = "masked"
    """What this world is."""

    bits: tuple[int, ...] = (4, 5, 6, 7, 8, 9, 10)
    """Observed bits, one of which is hidden in each row."""

    concepts: int = 3
    """Number of concepts."""

    edges: tuple[float | None, ...] = (None,)
    """Edges per concept of the random graphs on which concepts depend on each other; null is a chain instead."""

    seeds: int = 5
    """Worlds and models of each graph and number of bits."""

    steps: int = 600
    """Steps of training of each model."""

    hidden: int = 256
    """Width of the hidden layers; a wide layer of random weights separates a few bits as well."""

    rows: int = 6000
    """Rows that a model is trained on; as many fresh ones are probed, half of them to fit."""

    def __post_init__(self) -> None:
        _require_counts(concepts=self.concepts, seeds=self.seeds, steps=self.steps, hidden=self.hidden)
        if self.rows < 1000:
            raise ValueError("rows must be 1000 or more: a probe is fitted on half of them and scored on the other")
        most = self.concepts << self.concepts
        if not _different(self.bits) or min(self.bits) < 2 or max(self.bits) > most:
            raise ValueError(f"bits must be different numbers from 2 to {most}, which {self.concepts} concepts have")
        complete = (self.concepts - 1) / 2
        if not _different(self.edges) or not all(edge is None or 0 <= edge <= complete for edge in self.edges):
            raise ValueError(
                f"edges must be different: null for a chain, or numbers from 0 to {complete:g}, at which "
                f"{self.concepts} concepts are all connected"
            )


@settings
class SpheresWorldConfig:
    """Clusters on a sphere behind an invertible network: does telling them apart recover where a point lies?"""

    kind: Literal["spheres"] = "spheres"
    """What this world is."""

    concentrations: tuple[float, ...] = (10.0, 50.0)
    """How tightly points lie around the direction of their class: at 10 clusters overlap, at 50 they are islands."""

    labels: tuple[Literal["class", "instance", "permuted"], ...] = ("class", "instance", "permuted")
    """What encoders are trained to tell: classes, instances of them, or the classes of other points (a control)."""

    label_vectors: Literal["free", "unit"] = "free"
    """`unit`: of length 1, which leaves a rotation of the points open and no more."""

    dim: int = 5
    """Dimensions of the space around the sphere."""

    classes: int = 100
    """Number of classes."""

    instances: int = 1000
    """Labels of encoders of instances, spread evenly over the classes."""

    seeds: int = 3
    """Worlds and encoders at each concentration."""

    steps: int = 5000
    """Steps of training of each encoder."""

    def __post_init__(self) -> None:
        _require_counts(instances=self.instances, seeds=self.seeds, steps=self.steps)
        if not _different(self.concentrations) or not all(0 < one < math.inf for one in self.concentrations):
            raise ValueError("concentrations must be different numbers above 0, for example [10, 50]")
        if not _different(self.labels) or set(self.labels) == {"permuted"}:
            raise ValueError("labels must be different and name class or instance; permuted is a control of these")
        if min(self.dim, self.classes) < 2:
            raise ValueError("dim and classes must be 2 or more")


SeededConfig: TypeAlias = NoisyWorldConfig | PhaseWorldConfig | MaskedWorldConfig | SpheresWorldConfig
"""A world that is asked over seeds."""

Seeded = TypeVar("Seeded", bound=SeededConfig)


def _different(values: tuple[object, ...]) -> bool:
    """Whether there is one at least, and none twice."""
    return 0 < len(values) == len(set(values))


def _require_noises(noises: tuple[float, ...]) -> None:
    if not _different(noises) or not all(0 < noise < 1 for noise in noises):
        raise ValueError("noises must be different and lie between 0 and 1, for example [0.3, 0.03]")


def _require_counts(**counts: int) -> None:
    if min(counts.values()) < 1:
        raise ValueError(f"{' and '.join(counts)} must be 1 or more")
