"""Directions of concepts, as part of the pair test: in the unembedding, and within the words of a store.

Three questions to the same word pairs (`analyses.direction_tests`, `analyses.pair_cosines`). Do the pairs of a concept
share a direction in the unembedding, and are the directions of concepts apart in the causal inner product? Are the
differences of a concept's pairs parallel, in the unembedding and at every site? Does the mean difference of rows of
`final_norm` point where that of the unembedding does?

    found = direction_tests(grams, config, sites, Silent())
    found.unembedding.tests, found.cosines

Only pairs whose two words are one token each, in the form of words inside a text, have a row of the unembedding for
each word; `single` counts them for every concept.

What can go wrong: too few such pairs, a vocabulary hardly larger than the model is wide, or a checkpoint that is not
here any more leave the unembedding untested; `reason` says so, and the rest of the pair test stands.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.causal_directions import (
    InnerProduct,
    TokenPairs,
    VocabularyCorrelations,
    concept_directions,
    differences,
    vocabulary_correlations,
)
from lrh_ray.analyses.direction_tests import DirectionMap, LeaveOneOut, direction_map, leave_one_out
from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.pair_cosines import WithinCosines, alignment, same_word_cosines, within_cosines
from lrh_ray.analyses.pair_test import SplitHalfTest
from lrh_ray.errors import CheckpointMissing, NotEnoughData
from lrh_ray.models.sites import FINAL_NORM
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.reader import open_store
from lrh_ray.studies.context_study import ContextAnswer, measure_contexts
from lrh_ray.studies.pair_config import PairTestConfig
from lrh_ray.studies.pair_grams import Place, WordGrams, places, unembedding_rows
from lrh_ray.studies.progress import Progress
from lrh_ray.studies.weights import find_checkpoint

Inner: TypeAlias = Literal["causal", "euclidean", "random"]
COMPARED: tuple[Inner, ...] = ("causal", "euclidean")
"""Inner products in which directions are tested; `random` is a control of the map alone."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Aligned:
    """Rows of `final_norm` against the unembedding: from different words, and |cosine| [K, K] from the same ones."""

    test: SplitHalfTest
    same_words: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnembeddingTests:
    """Tests of pairs of single tokens, by inner product. Without rows of `final_norm`, the last two are empty."""

    pairs: TokenPairs
    left_out: Mapping[Inner, LeaveOneOut]
    maps: Mapping[Inner, DirectionMap]
    vocabulary: VocabularyCorrelations
    within: Mapping[Inner, WithinCosines]
    aligned: Mapping[Inner, Aligned]
    contexts: Mapping[str, ContextAnswer]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnembeddingAnswer:
    """Pairs of single tokens of every concept of the store, and the tests, or why there are none."""

    single: Mapping[str, int]
    tests: UnembeddingTests | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CosineAnswer:
    """Within-concept cosines of the store's words at a place."""

    place: Place
    within: WithinCosines


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Directions:
    """Everything that was found."""

    unembedding: UnembeddingAnswer
    cosines: Sequence[CosineAnswer]


def direction_tests(grams: WordGrams, config: PairTestConfig, sites: Sequence[str], progress: Progress) -> Directions:
    """Run all tests as tasks on the cluster."""
    wanted = list(places(config, sites, sources=("model", "untrained"), with_twin=grams.twin is not None))
    progress.begin(f"directions: the unembedding, and cosines of differences at {len(wanted)} places")
    (unembedding,) = sample([FINAL_NORM in sites], UnembeddingTask(grams=grams, config=config))
    return Directions(unembedding=unembedding, cosines=sample(wanted, CosineTask(grams=grams, config=config)))


@dataclass(frozen=True, kw_only=True)
class CosineTask:
    """Cosines of differences at a place."""

    grams: WordGrams
    config: PairTestConfig

    def __call__(self, place: Place) -> CosineAnswer:
        table = self.grams.pairs.table
        within = within_cosines(self.grams(place), table, draws=self.config.draws, seed=self.config.seed)
        return CosineAnswer(place=place, within=within)


@dataclass(frozen=True, kw_only=True)
class UnembeddingTask:
    """All tests of the unembedding, with rows of `final_norm` beside it where the store has them."""

    grams: WordGrams
    config: PairTestConfig

    def __call__(self, with_rows: bool) -> UnembeddingAnswer:
        concepts = self.grams.pairs.concepts
        single = dict.fromkeys(concepts, 0)
        try:
            kept, tokens = self._single_tokens()
            single.update(Counter(concepts[pair] for pair in kept))
            pairs = TokenPairs.of([concepts[pair] for pair in kept], tokens)
            return UnembeddingAnswer(single=single, tests=self._tests(pairs, np.array(kept), with_rows), reason="")
        except (NotEnoughData, CheckpointMissing) as error:
            return UnembeddingAnswer(single=single, tests=None, reason=str(error))

    def _single_tokens(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Numbers of the pairs whose words are two different tokens, and the tokens."""
        from lrh_ray.models.tokens import load_tokenizer
        from lrh_ray.models.word_tokens import word_tokens

        tokenizer, words = load_tokenizer(find_checkpoint(self.grams.model)), self.grams.pairs.words
        sides = (word_tokens(tokenizer, [pair[side] for pair in words]) for side in (0, 1))
        found = {
            number: (first, second)
            for number, (first, second) in enumerate(zip(*sides, strict=True))
            if first is not None and second is not None and first != second
        }
        return list(found), list(found.values())

    def _tests(self, pairs: TokenPairs, kept: np.ndarray, with_rows: bool) -> UnembeddingTests:
        unembedding, draws, seed = unembedding_rows(self.grams.model), self.config.draws, self.config.seed
        causal = InnerProduct.causal(unembedding)
        inner: dict[Inner, InnerProduct] = {
            "causal": causal,
            "euclidean": InnerProduct.euclidean(unembedding.shape[1]),
            "random": causal.random(np.random.default_rng([seed, 2])),
        }
        number = self.config.random_pairs
        return UnembeddingTests(
            pairs=pairs,
            left_out={
                name: leave_one_out(unembedding, pairs, inner[name], random_pairs=number, draws=draws, seed=seed)
                for name in COMPARED
            },
            maps={name: direction_map(unembedding, pairs, inner[name], draws=draws, seed=seed) for name in inner},
            vocabulary=vocabulary_correlations(unembedding, concept_directions(unembedding, pairs, causal).contexts),
            within={name: self._within(unembedding, pairs, inner[name]) for name in COMPARED},
            aligned={name: self._aligned(unembedding, pairs, inner[name], kept) for name in COMPARED if with_rows},
            contexts=self._contexts(unembedding, pairs, causal) if with_rows else {},
        )

    def _within(self, unembedding: np.ndarray, pairs: TokenPairs, inner: InnerProduct) -> WithinCosines:
        tokens = np.concatenate([pairs.first, pairs.second])
        words = inner.coordinates(unembedding[tokens].astype(np.float64))
        return within_cosines(words @ words.T, pairs.table, draws=self.config.draws, seed=self.config.seed)

    def _aligned(self, unembedding: np.ndarray, pairs: TokenPairs, inner: InnerProduct, kept: np.ndarray) -> Aligned:
        first, second = np.split(self.grams.rows(FINAL_NORM, "model"), 2)
        e = inner.dual_coordinates(second[kept] - first[kept])
        u = inner.coordinates(differences(unembedding, pairs))
        repeats, draws, seed = self.config.repeats, self.config.draws, self.config.seed
        products = (e @ e.T, e @ u.T, u @ u.T, pairs.table)
        return Aligned(
            test=alignment(*products, repeats=repeats, draws=draws, seed=seed),
            same_words=same_word_cosines(*products),
        )

    def _contexts(
        self, unembedding: np.ndarray, pairs: TokenPairs, causal: InnerProduct
    ) -> Mapping[str, ContextAnswer]:
        words = concept_directions(unembedding, pairs, causal).words
        store, bootstrap = (
            open_store(self.grams.location),
            DocumentBootstrap(draws=self.config.draws, seed=self.config.seed),
        )
        return measure_contexts(store, FINAL_NORM, words, causal, bootstrap)
