"""Inner products of a store's words: every site, source and metric, as tasks ask for them.

    grams = WordGrams(location=location, twin=None, pairs=pairs, seed=0, model=config.model)
    grams(Place(site="final_norm", metric="causal", source="model"))       # [2P, 2P]

A place is one site's rows from one source: the model, its twin with random weights, or Gaussian noise with the mean and
covariance of the model's rows. The unembedding is read once in a process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.pair_metrics import covariance_of, gram_of, matched_noise, whitened_gram
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sites import FINAL_NORM
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.studies.pair_config import Metric, PairTestConfig
from lrh_ray.studies.pair_words import WordPairs, word_rows
from lrh_ray.studies.weights import find_checkpoint

Source: TypeAlias = Literal["model", "noise", "untrained"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Rows of a site, from one source, in one metric."""

    site: str
    metric: Metric
    source: Source


@dataclass(frozen=True, kw_only=True)
class WordGrams:
    """Reads the rows of a place and multiplies them, on whichever worker calls it."""

    location: Location
    twin: Location | None
    pairs: WordPairs
    seed: int
    model: ModelConfig

    def rows(self, site: str, source: Source) -> np.ndarray:
        """[2P, D] float64: first words, then second words."""
        location = self.twin if source == "untrained" and self.twin is not None else self.location
        rows = word_rows(open_store(location), site, self.pairs)
        return matched_noise(rows, np.random.default_rng([self.seed, 1])) if source == "noise" else rows

    def __call__(self, place: Place) -> np.ndarray:
        rows = self.rows(place.site, place.source)
        if place.metric == "whitened":
            return whitened_gram(rows)
        return gram_of(rows, unembedding_covariance(self.model) if place.metric == "causal" else None)


def places(
    config: PairTestConfig, sites: Sequence[str], *, sources: Sequence[Source], with_twin: bool
) -> Iterator[Place]:
    """Every place that can be had: no twin without its store, no causal metric but for `final_norm` of the model."""
    present: Mapping[Source, bool] = {"model": True, "noise": True, "untrained": with_twin}
    for site in sites:
        for metric in config.metrics:
            for source in sources:
                if present[source] and not (metric == "causal" and (site != FINAL_NORM or source == "untrained")):
                    yield Place(site=site, metric=metric, source=source)


@cache
def unembedding_rows(model: ModelConfig) -> np.ndarray:
    """The unembedding [V, D] in float32, of the weights that the configuration names."""
    from lrh_ray.models.matrices import unembedding

    return np.asarray(unembedding(find_checkpoint(model)).weight.float().numpy())


@cache
def unembedding_covariance(model: ModelConfig) -> np.ndarray:
    """Cov(gamma) over the vocabulary [D, D]."""
    return covariance_of(unembedding_rows(model))
