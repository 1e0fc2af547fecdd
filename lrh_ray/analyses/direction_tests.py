"""Do the words of a concept share a direction, and are the directions of concepts apart? Park et al. (2311.03658).

    loo = leave_one_out(gamma, pairs, inner, random_pairs=100_000, draws=999, seed=0)
    loo.shift, loo.low, loo.high, loo.auc, loo.p_values      # [K]
    heat = direction_map(gamma, pairs, inner, draws=999, seed=0)
    heat.cosines                                             # [K, K], |cosine| in `inner`

**Leave one out.** The difference of each pair is projected on the mean difference of the
concept's other pairs; projections of the differences of random tokens are the yardstick. A pair that shares a word
with others, in any concept and through any chain, is left out together with them: pairs with a common word agree by
themselves. `shift` is the distance of the means in standard deviations of random pairs, `auc` the chance that a pair
of the concept projects further than a random one. The p value does not rest on random tokens, which differ from words
in more than the concept: its null swaps the words of each group of pairs at random, which is exact if the order in a
pair means nothing.

**Heat map.** |<gamma_W, gamma_Z>| of unit directions. The paper expects small values off the diagonal for
concepts that vary freely of one another. In many dimensions most inner products give small values, so the map is to be
read beside the Euclidean one and that of `InnerProduct.random`.

What can go wrong: words drawn with replacement are fewer words, so bootstrap draws lie below the estimate; intervals
take their spread around it. With G groups of words there are 2^(G - 1) ways to swap, and no smaller p value. A concept
with fewer than `MIN_GROUPS` is not judged (NaN). Whether pairs are counterfactual or merely words of two kinds makes no
difference to a mean difference: `pair_cosines` has the control for that.

Legend: P pairs, K concepts, N random pairs, B draws, V tokens.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.causal_directions import (
    InnerProduct,
    TokenPairs,
    concept_directions,
    differences,
    vocabulary_scores,
)
from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.layouts import ConceptFloats, ConceptMatrix, NullDraws, PairFloats, PairGram, TokenRows
from lrh_ray.analyses.multiplicity import max_t_p_values
from lrh_ray.analyses.pair_test import MIN_GROUPS, PairTable
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import ConfigError, NotEnoughData

ENDS = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LeaveOneOut:
    """Projections of pairs on the direction of their concept's other pairs, in units of the inner product.

    `projections` [P]; `random_mean`, `random_sd` [K] of random pairs on the concept's direction. `shift` [K] with 95 %
    intervals, `auc` [K], `null` [B, K] shifts with swapped words, and p values adjusted for all concepts. NaN for
    concepts that were not judged.
    """

    projections: PairFloats
    random_mean: ConceptFloats
    random_sd: ConceptFloats
    shift: ConceptFloats
    low: ConceptFloats
    high: ConceptFloats
    auc: ConceptFloats
    null: NullDraws
    p_values: ConceptFloats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DirectionMap:
    """|cosine| [K, K] of concept directions with pointwise 95 % intervals.

    `off` is the mean off the diagonal over concepts with `MIN_GROUPS` groups of words; NaN if fewer than two have them.
    """

    cosines: ConceptMatrix
    low: ConceptMatrix
    high: ConceptMatrix
    off: float
    off_low: float
    off_high: float


def leave_one_out(
    unembedding: TokenRows, pairs: TokenPairs, inner: InnerProduct, *, random_pairs: int, draws: int, seed: int
) -> LeaveOneOut:
    """The test for every concept. Costs V D K for the random pairs, and B P^2 of each concept.

    Raises:
        NotEnoughData: No concept has `MIN_GROUPS` groups of words.
        ConfigError: Fewer than 2 random pairs.
    """
    table, judged = pairs.table, judged_concepts(pairs.table)
    random_NK = random_projections(unembedding, pairs, inner, number=random_pairs, rng=np.random.default_rng([seed, 0]))
    gram, num_groups = difference_gram(unembedding, pairs, inner), int(table.group.max()) + 1
    swaps_BG = np.random.default_rng([seed, 1]).integers(0, 2, (draws, num_groups)) * 2.0 - 1.0
    counts_BG = DocumentBootstrap(draws=draws, seed=seed).weights(num_groups)
    projections = np.full(table.num_pairs, np.nan)
    shift, auc, low, high, p_values = (np.full(len(table.concepts), np.nan) for _ in range(5))
    null, resampled = (np.full((draws, len(table.concepts)), np.nan) for _ in range(2))
    for concept in judged.tolist():
        own = table.pairs_of(concept)
        pulled = _LeftOut(gram=gram[np.ix_(own, own)], groups=table.group[own], random=random_NK[:, concept])
        ones, swaps_BP, counts_BP = (
            np.ones((1, len(own))),
            swaps_BG[:, table.group[own]],
            counts_BG[:, table.group[own]],
        )
        projections[own] = left_out_projections(pulled.gram, pulled.groups, ones, ones)[0]
        auc[concept] = _share_above(projections[own], pulled.random)
        shift[concept] = pulled.shift(ones, ones)[0]
        null[:, concept] = pulled.shift(np.ones_like(swaps_BP), swaps_BP)
        resampled[:, concept] = pulled.shift(counts_BP, np.ones_like(counts_BP))
    low[judged], high[judged] = _around(shift[judged], resampled[:, judged])
    p_values[judged] = max_t_p_values(shift[judged], null[:, judged])
    return LeaveOneOut(
        projections=projections,
        random_mean=random_NK.mean(axis=0),
        random_sd=random_NK.std(axis=0),
        shift=shift,
        low=low,
        high=high,
        auc=auc,
        null=null,
        p_values=p_values,
    )


def judged_concepts(table: PairTable) -> np.ndarray:
    """Numbers of the concepts with enough groups of words.

    Raises:
        NotEnoughData: None has `MIN_GROUPS`.
    """
    judged = np.flatnonzero(table.judged)
    if not len(judged):
        raise NotEnoughData(f"No concept has {MIN_GROUPS} groups of words without a word in common; add pairs.")
    return judged


def difference_gram(unembedding: TokenRows, pairs: TokenPairs, inner: InnerProduct) -> PairGram:
    """Inner products of the differences of all pairs."""
    coordinates_PD = inner.coordinates(differences(unembedding, pairs))
    return np.asarray(coordinates_PD @ coordinates_PD.T)


def random_projections(
    unembedding: TokenRows, pairs: TokenPairs, inner: InnerProduct, *, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Projections [N, K] of differences of random tokens, never equal ones, on the direction of every concept.

    Raises:
        ConfigError: Fewer than 2 pairs.
    """
    if number < 2:
        raise ConfigError(f"{number!r} random pairs have no spread; take at least 2, better 100,000.")
    scores_VK = vocabulary_scores(unembedding, concept_directions(unembedding, pairs, inner).contexts)
    first_N = rng.integers(len(scores_VK), size=number)
    second_N = (first_N + rng.integers(1, len(scores_VK), size=number)) % len(scores_VK)
    return np.asarray(scores_VK[second_N] - scores_VK[first_N])


def left_out_projections(
    gram: np.ndarray, groups: np.ndarray, counts_BP: np.ndarray, signs_BP: np.ndarray
) -> np.ndarray:
    """Projections [B, P] of each pair on the unit mean of the pairs of other groups.

    In draw b pair p counts `counts_BP` times in means and has its words swapped where the sign is -1. All follows from
    inner products: with a = sum over all pairs, o = sum over the pair's own group, it is d . (a - o) / |a - o|.
    """
    same_PP = (groups[:, None] == groups).astype(np.float64)
    weights_BP = counts_BP * signs_BP
    all_BP, own_BP = weights_BP @ gram, weights_BP @ (gram * same_PP)
    total_B1 = (weights_BP * all_BP).sum(axis=1, keepdims=True)
    square_BP = total_B1 - 2 * (weights_BP * all_BP) @ same_PP + (weights_BP * own_BP) @ same_PP
    return ratio(signs_BP * (all_BP - own_BP), np.sqrt(np.maximum(square_BP, 0.0)), otherwise=0.0)


def direction_map(
    unembedding: TokenRows, pairs: TokenPairs, inner: InnerProduct, *, draws: int, seed: int
) -> DirectionMap:
    """Cosines of all concepts with all. Costs P^2 D + B K P^2.

    Intervals resample groups of words, of all concepts together; a draw without words of a concept says nothing of its
    cosines. A mean of few pairs is noisy, which makes cosines with it small: compare concepts with many pairs.
    """
    gram, table = difference_gram(unembedding, pairs, inner), pairs.table
    num, num_groups = len(table.concepts), int(table.group.max()) + 1
    counts_BP = np.concatenate(
        [np.ones((1, num_groups)), DocumentBootstrap(draws=draws, seed=seed).weights(num_groups)]
    )[:, table.group]
    member_KP = (table.concept == np.arange(num)[:, None]).astype(np.float64)
    cosines_BKK = np.stack([_absolute_cosines(member_KP * counts_P, gram) for counts_P in counts_BP])
    estimate, resampled = cosines_BKK[0], cosines_BKK[1:]
    low, high = _around(estimate, resampled)
    off = ~np.eye(num, dtype=bool) & np.outer(table.judged, table.judged)
    means_B = _mean_or_nan(cosines_BKK[:, off])
    off_low, off_high = _around(means_B[:1], means_B[1:, None])
    return DirectionMap(
        cosines=estimate,
        low=np.clip(low, 0.0, 1.0),
        high=np.clip(high, 0.0, 1.0),
        off=float(means_B[0]),
        off_low=float(off_low[0]),
        off_high=float(off_high[0]),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _LeftOut:
    """One concept: products of its differences [P, P], groups of its pairs [P], and projections of random pairs [N]."""

    gram: np.ndarray
    groups: np.ndarray
    random: np.ndarray

    def shift(self, counts_BP: np.ndarray, signs_BP: np.ndarray) -> np.ndarray:
        """Mean projection [B], in standard deviations of random pairs from their mean; NaN where no pair counts."""
        projections_BP = left_out_projections(self.gram, self.groups, counts_BP, signs_BP)
        mean_B = ratio((projections_BP * counts_BP).sum(axis=1), counts_BP.sum(axis=1), otherwise=np.nan)
        return ratio(mean_B - self.random.mean(), np.asarray(self.random.std()), otherwise=0.0)


def _share_above(values: np.ndarray, others: np.ndarray) -> float:
    """Chance that one of `values` exceeds one of `others`, ties counting half: the area under the ROC curve."""
    ascending = np.sort(others)
    below = np.searchsorted(ascending, values, side="left") + np.searchsorted(ascending, values, side="right")
    return float(below.mean() / (2 * len(others)))


def _absolute_cosines(weights_KP: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """[K, K] of weighted sums of differences; NaN for a concept without weight or without a direction."""
    products_KK = weights_KP @ gram @ weights_KP.T
    length_K = np.sqrt(np.maximum(np.diagonal(products_KK), 0.0))
    return np.asarray(np.abs(ratio(products_KK, np.outer(length_K, length_K), otherwise=np.nan)))


def _mean_or_nan(values_BC: np.ndarray) -> np.ndarray:
    """Means of rows over what is finite; NaN for rows with nothing."""
    finite = np.isfinite(values_BC)
    return ratio(np.where(finite, values_BC, 0.0).sum(axis=1), finite.sum(axis=1), otherwise=np.nan)


def _around(estimates: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of 95 % intervals: the spread of the draws [B, ...] around the estimates; NaN where no draw has a value."""
    known = np.isfinite(draws)
    some = known.any(axis=0)
    filled = np.where(some, np.where(known, draws, np.nan), 0.0)
    low, high = np.nanquantile(filled, ENDS, axis=0) - np.nanmedian(filled, axis=0)
    return np.where(some, estimates + low, np.nan), np.where(some, estimates + high, np.nan)
