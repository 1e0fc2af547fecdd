"""Directions of concepts in an unembedding, and the causal inner product of Park et al. (arXiv 2311.03658).

A model says p(y | x) in proportion to exp(lambda(x) . gamma(y)): lambda is a row of `final_norm`, gamma a row of the
unembedding. A concept is a set of word pairs that differ in it; its direction is the mean of gamma(second) -
gamma(first). Which inner product may compare two of them? The same model has other coordinates, gamma -> A^-T gamma +
b with lambda -> A lambda for any invertible A, and a Euclidean cosine depends on them. The causal one does not:

    <u, v>_C = u^T Cov(gamma)^-1 v           Cov over the vocabulary, every token once

    inner = InnerProduct.causal(gamma)                     # or .euclidean(D), or inner.random(rng), a control
    g = inner.coordinates(differences(gamma, pairs))       # g = Cov^-1/2 gamma: cosines there are causal ones
    l = inner.dual_coordinates(rows)                       # l = Cov^1/2 lambda: l . g = lambda . gamma
    directions = concept_directions(gamma, pairs, inner)
    directions.words, directions.contexts                  # gamma_W of length one, and lambda_W = Cov^-1 gamma_W

`contexts` is what moves a context along the concept (Eq. 4.1). The tests are in `direction_tests` and `pair_cosines`.

What can go wrong: with hardly more tokens than features whitening makes all tokens equally far from one another, and
nothing can be found (`NotEnoughData`). A covariance without full rank is inverted on the span of the differences of
tokens, where all directions lie. Tokens that no text ever has (reserved ones) count as much as any other.

Legend: V tokens, D features, P pairs, K concepts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ConceptMatrix, ConceptRows, PairInts, PairRows, TokenRows, TokenScores
from lrh_ray.analyses.pair_metrics import covariance_of
from lrh_ray.analyses.pair_test import PairTable
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Rows64

MIN_TOKENS_PER_FEATURE = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InnerProduct:
    """<u, v> = u^T C^-1 v between directions of the unembedding, by the eigendecomposition of C; float64."""

    spectrum: Spectrum

    @classmethod
    def causal(cls, unembedding: TokenRows) -> "InnerProduct":
        """C = Cov(gamma) of the rows [V, D], in tiles: V D^2 + O(D^3) FLOP.

        Raises:
            NotEnoughData: Fewer than two tokens per feature, or a row that is not finite.
        """
        num_tokens, num_features = unembedding.shape
        if num_tokens < MIN_TOKENS_PER_FEATURE * num_features:
            raise NotEnoughData(
                f"An unembedding of {num_tokens} tokens by {num_features} features has no causal inner product to "
                f"speak of: whitened, its tokens are all equally far apart. Use a model with at least "
                f"{MIN_TOKENS_PER_FEATURE} tokens per feature."
            )
        return cls(spectrum=Spectrum.of(covariance_of(unembedding)))

    @classmethod
    def euclidean(cls, num_features: int) -> "InnerProduct":
        """C = I."""
        return cls(spectrum=Spectrum(values=np.ones(num_features), vectors=np.eye(num_features)))

    def random(self, rng: np.random.Generator) -> "InnerProduct":
        """The same eigenvalues of C with random eigenvectors: as uneven as this one, and blind to the model."""
        rotation, triangle = np.linalg.qr(rng.standard_normal(self.spectrum.vectors.shape))
        uniform = rotation * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)  # without signs QR is not uniform
        return InnerProduct(spectrum=Spectrum(values=self.spectrum.values, vectors=uniform))

    def coordinates(self, words: Rows64) -> Rows64:
        """C^-1/2 gamma for each row; plain products there are this inner product."""
        return self._times(words, ratio(1.0, np.sqrt(self.spectrum.values), otherwise=0.0))

    def dual_coordinates(self, contexts: Rows64) -> Rows64:
        """C^1/2 lambda for each row of `final_norm`, in the coordinates of `coordinates`."""
        return self._times(contexts, np.sqrt(self.spectrum.values))

    def dual(self, words: Rows64) -> Rows64:
        """C^-1 gamma for each row: the context direction that belongs to a word direction."""
        return self._times(words, ratio(1.0, self.spectrum.values, otherwise=0.0))

    def _times(self, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
        return np.asarray((rows @ self.spectrum.vectors * factors) @ self.spectrum.vectors.T)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenPairs:
    """P pairs of words of one token each: which concept they are of, and the ids of both tokens [P]."""

    table: PairTable
    first: PairInts
    second: PairInts

    @classmethod
    def of(cls, concepts: Sequence[str], tokens: Sequence[tuple[int, int]]) -> "TokenPairs":
        """From each pair's concept and tokens; pairs that share a token are of one group.

        Raises:
            NotEnoughData: No pairs.
        """
        table = PairTable.of(concepts, [(str(first), str(second)) for first, second in tokens])
        ids = np.array(tokens, dtype=np.int64)
        return cls(table=table, first=ids[:, 0], second=ids[:, 1])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ConceptDirections:
    """Directions [K, D], from first to second words, of length one in the inner product that they were made with.

    `words` are gamma_W, `contexts` their duals lambda_W = C^-1 gamma_W. A concept whose differences cancel has zeros.
    """

    words: ConceptRows
    contexts: ConceptRows


def differences(unembedding: TokenRows, pairs: TokenPairs) -> PairRows:
    """gamma(second) - gamma(first) of each pair [P, D], float64."""
    return np.asarray(unembedding[pairs.second].astype(np.float64) - unembedding[pairs.first].astype(np.float64))


def concept_directions(unembedding: TokenRows, pairs: TokenPairs, inner: InnerProduct) -> ConceptDirections:
    """The mean difference of each concept's pairs, of length one in `inner`."""
    member_KP = pairs.table.concept == np.arange(len(pairs.table.concepts))[:, None]
    mean_KD = member_KP @ differences(unembedding, pairs) / member_KP.sum(axis=1, keepdims=True)
    length_K = np.linalg.norm(inner.coordinates(mean_KD), axis=1, keepdims=True)
    words_KD = ratio(mean_KD, length_K, otherwise=0.0)
    return ConceptDirections(words=words_KD, contexts=inner.dual(words_KD))


def vocabulary_scores(unembedding: TokenRows, directions: ConceptRows) -> TokenScores:
    """The products direction . gamma of every token and direction [V, K], in float64 tiles."""
    scores = np.empty((len(unembedding), len(directions)))
    for tile in tile_slices(len(unembedding)):
        scores[tile] = unembedding[tile].astype(np.float64) @ directions.T
    return scores


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VocabularyCorrelations:
    """Pearson correlations [K, K] over the vocabulary, of scores and of squared centred scores.

    The paper derives the causal inner product from independent lambda_W . gamma and lambda_Z . gamma. `scores` of
    causal directions equal their causal cosines by algebra, so they are no second evidence. `squares` can contradict:
    they vanish for independent scores, and not for merely uncorrelated ones.
    """

    scores: ConceptMatrix
    squares: ConceptMatrix


def vocabulary_correlations(unembedding: TokenRows, directions: ConceptRows) -> VocabularyCorrelations:
    """Correlations of the scores direction . gamma of all tokens; V K^2 FLOP. 0 where nothing varies."""
    scores_VK = vocabulary_scores(unembedding, directions)
    scores_VK -= scores_VK.mean(axis=0)
    return VocabularyCorrelations(scores=_correlations(scores_VK), squares=_correlations(scores_VK**2))


def _correlations(values_VK: np.ndarray) -> np.ndarray:
    centred_VK = values_VK - values_VK.mean(axis=0)
    spread_K = np.linalg.norm(centred_VK, axis=0)
    return ratio(centred_VK.T @ centred_VK, np.outer(spread_K, spread_K), otherwise=0.0)
