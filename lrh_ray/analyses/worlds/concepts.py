"""Discrete concepts on a random directed acyclic graph, with the probability of every configuration.

    prior = ConceptPrior.random(chain(3), np.random.default_rng(0))
    prior.configurations             # [8, 3] values of the concepts
    prior.log_probabilities          # [8], exact

All configurations are enumerated, so worlds are small: a dozen binary concepts at most.

Legend: C configurations of all concepts, M concepts.
"""

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np

from lrh_ray.analyses.layouts import Configurations, LogProbabilities
from lrh_ray.errors import ConfigError

Graph: TypeAlias = tuple[tuple[int, ...], ...]
"""Parents of each concept, all of them earlier."""

MOST_CONFIGURATIONS = 1 << 14
LEAST, MOST = 0.2, 0.8
"""Range of the probability of a concept's first value, given its parents; the paper's (section 6)."""


def chain(num_concepts: int) -> Graph:
    """Each concept depends on the one before."""
    return tuple((k - 1,) if k else () for k in range(num_concepts))


def random_graph(num_concepts: int, edges_per_concept: float, rng: np.random.Generator) -> Graph:
    """ER-k: edges from earlier to later concepts, k * concepts of them expected.

    Raises:
        ConfigError: A negative number of edges.
    """
    if edges_per_concept < 0:
        raise ConfigError(f"edges_per_concept is {edges_per_concept!r}; it must be at least 0.")
    pairs = num_concepts * (num_concepts - 1) / 2
    share = min(1.0, edges_per_concept * num_concepts / pairs) if pairs else 0.0
    return tuple(tuple(np.flatnonzero(rng.random(k) < share).tolist()) for k in range(num_concepts))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ConceptPrior:
    """All configurations [C, M], in the order of their last concept, and their log-probabilities [C] in nats."""

    configurations: Configurations
    log_probabilities: LogProbabilities

    @classmethod
    def random(cls, graph: Graph, rng: np.random.Generator, values: tuple[int, ...] | None = None) -> "ConceptPrior":
        """Concepts with `values` each (default 2), and tables of conditional probabilities drawn at random.

        A concept of two values has its first with probability U[.2, .8] for every configuration of its parents; one of
        more values has shares proportional to such draws.

        Raises:
            ConfigError: More configurations than can be enumerated, or a concept with fewer than 2 values.
        """
        values = (2,) * len(graph) if values is None else values
        total = int(np.prod(values, dtype=object))
        if len(values) != len(graph) or min(values, default=2) < 2 or total > MOST_CONFIGURATIONS:
            raise ConfigError(
                f"{len(graph)} concepts with {values!r} values have {total} configurations; each concept needs at "
                f"least 2 values, and all are enumerated, so at most {MOST_CONFIGURATIONS}."
            )
        every = list(product(*(range(k) for k in values)))
        configurations = np.array(every, dtype=np.int64).reshape(total, len(values))
        logs = np.zeros(total)
        for concept, parents in enumerate(graph):
            family = configurations[:, list(parents)]
            _, place = np.unique(family, axis=0, return_inverse=True) if parents else (None, np.zeros(total, np.int64))
            table = _table(int(place.max()) + 1, values[concept], rng)
            logs += np.log(table[place.reshape(-1), configurations[:, concept]])
        return cls(configurations=configurations, log_probabilities=logs)

    def draw(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers [N] of configurations."""
        return rng.choice(len(self.log_probabilities), size=num, p=np.exp(self.log_probabilities))

    def lifting(self, concept: int) -> np.ndarray:
        """[C, values] 1 where a configuration has that value: sums over configurations give marginals."""
        column = self.configurations[:, concept]
        return np.asarray(column[:, None] == np.arange(column.max() + 1), dtype=np.float64)


def _table(rows: int, values: int, rng: np.random.Generator) -> np.ndarray:
    """Conditional probabilities [rows, values]."""
    if values == 2:
        first = rng.uniform(LEAST, MOST, size=rows)
        return np.stack([first, 1 - first], axis=1)
    shares = rng.uniform(LEAST, MOST, size=(rows, values))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
