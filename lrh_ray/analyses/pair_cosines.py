"""Do the pairs of a concept differ in one direction? Cosines of differences (Jiang et al., arXiv 2403.03867).

Training is expected to make the differences of a concept's pairs parallel, in the unembedding (U: gamma(second) -
gamma(first)) and in the representation (E: the same of rows), to align E with U of the same concept, and to leave
unrelated concepts apart. Everything follows from inner products of the words' rows, in any metric of `pair_metrics`;
rows are all first words, then all second words.

    within = within_cosines(gram, table, draws=200, seed=0)
    within.cosine, within.low, within.high, within.p_values, within.shuffled      # [K]
    aligned = alignment(ee, eu, uu, table, repeats=20, draws=200, seed=0)         # E from one half of the words,
    aligned.cosines, aligned.p_values                                             # U from the other

`cosine` is the mean cosine of two pairs' differences, of pairs that share no word. Its null are random pairs of the
same words, as many as the concept has. `shuffled` gives every first word the second word of another pair of the
concept: a high cosine that shuffling leaves says that first and second words are of two kinds, and nothing of a
relation within each pair.

What can go wrong: words that end in one token have nearly one row whatever the model learned ("quickly", "slowly"), so
that E needs the untrained control. With tied weights a row can hold the unembedding of its own word, which makes E and
U of the same words agree; `alignment` takes different words for this reason.

Legend: P pairs, K concepts, B draws, N = 2P rows.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.direction_tests import judged_concepts
from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.layouts import ConceptFloats, ConceptMatrix, NullDraws, PairGram, RowGram
from lrh_ray.analyses.multiplicity import max_t_p_values
from lrh_ray.analyses.pair_test import (
    ROUNDING,
    SPLITS_PER_DRAW,
    PairTable,
    SplitHalfTest,
    halves,
    interval_around,
    per_draw,
    resampled_halves,
)
from lrh_ray.analyses.ratio import ratio

SHUFFLES = 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WithinCosines:
    """Mean cosine [K] of two pairs of a concept, with 95 % intervals over groups of words; NaN if not judged.

    `shuffled` [K]: the same with second words shuffled within the concept. `null` [B, K]: random pairs of all words;
    p values are adjusted for all concepts.
    """

    cosine: ConceptFloats
    low: ConceptFloats
    high: ConceptFloats
    shuffled: ConceptFloats
    null: NullDraws
    p_values: ConceptFloats


def within_cosines(gram: RowGram, table: PairTable, *, draws: int, seed: int) -> WithinCosines:
    """The test for every concept of `table`, from inner products [2P, 2P]. Costs B P^2 of each concept.

    Raises:
        NotEnoughData: No concept has `MIN_GROUPS` groups of words.
    """
    judged = judged_concepts(table)
    rng = np.random.default_rng([seed, 0])
    counts_BG = DocumentBootstrap(draws=draws, seed=seed).weights(int(table.group.max()) + 1)
    cosine, low, high, shuffled, p_values = (np.full(len(table.concepts), np.nan) for _ in range(5))
    null, resampled = (np.full((draws, len(table.concepts)), np.nan) for _ in range(2))
    for concept in judged.tolist():
        first = table.pairs_of(concept)
        second, groups = table.num_pairs + first, table.group[first]
        counts_BP = np.concatenate([np.ones((1, len(first))), counts_BG[:, groups]])
        values = _mean_cosines(_cosines(gram, first, second), _apart(groups), counts_BP)
        cosine[concept], resampled[:, concept] = values[0], values[1:]
        shuffled[concept] = _shuffled(gram, first, second, groups, rng)
        null[:, concept] = [_random(gram, len(first), rng) for _ in range(draws)]
    low[judged], high[judged] = interval_around(cosine[judged], _filled(resampled[:, judged], cosine[judged]))
    p_values[judged] = max_t_p_values(cosine[judged], null[:, judged])
    return WithinCosines(cosine=cosine, low=low, high=high, shuffled=shuffled, null=null, p_values=p_values)


def alignment(
    ee: PairGram, eu: PairGram, uu: PairGram, table: PairTable, *, repeats: int, draws: int, seed: int
) -> SplitHalfTest:
    """Cosines of the mean E of one half of the words (rows) with the mean U of the other (columns).

    `ee`, `uu` are inner products [P, P] of the pairs' differences in either space, `eu` those of E with U. The null
    swaps the words of random pairs.

    Raises:
        NotEnoughData: No concept has `MIN_GROUPS` groups of words.
    """
    judged, num = judged_concepts(table), len(table.concepts)
    spaces = _Spaces(ee=ee, eu=eu, uu=uu)
    member_KP = (table.concept == judged[:, None]).astype(np.float64)
    splits_RP = halves(table, judged, repeats, np.random.default_rng([seed, 0]))[:, table.group]
    cosines = np.full((num, num), np.nan)
    cosines[np.ix_(judged, judged)] = spaces.cosines(member_KP * splits_RP[:, None], member_KP * ~splits_RP[:, None])
    rng = np.random.default_rng([seed, 1])
    splits_FP = halves(table, judged, draws * SPLITS_PER_DRAW, rng)[:, table.group]
    signs_FP = np.repeat(rng.integers(0, 2, (draws, table.num_pairs)) * 2.0 - 1.0, SPLITS_PER_DRAW, axis=0)
    null, resampled = (np.full((draws, num), np.nan) for _ in range(2))
    for concept in judged.tolist():
        own = table.pairs_of(concept)
        mine, half_FP = spaces.only(own), splits_FP[:, own]
        null[:, concept] = per_draw(mine.agreement(signs_FP[:, own] * half_FP, signs_FP[:, own] * ~half_FP))
        counts_FP, half_FP = resampled_halves(table.group[own], draws, rng)
        resampled[:, concept] = per_draw(mine.agreement(counts_FP * half_FP, counts_FP * ~half_FP))
    low, high, p_values = (np.full(num, np.nan) for _ in range(3))
    diagonal = np.diagonal(cosines)[judged]
    low[judged], high[judged] = interval_around(diagonal, resampled[:, judged])
    p_values[judged] = max_t_p_values(diagonal, null[:, judged])
    return SplitHalfTest(cosines=cosines, low=low, high=high, null=null, p_values=p_values)


def same_word_cosines(ee: PairGram, eu: PairGram, uu: PairGram, table: PairTable) -> ConceptMatrix:
    """|cos(E_i, U_j)| [K, K] with both from all words: the published figure, which tied weights alone can raise."""
    member_KP = (table.concept == np.arange(len(table.concepts))[:, None]).astype(np.float64)
    return np.asarray(np.abs(_Spaces(ee=ee, eu=eu, uu=uu).cosines(member_KP[None], member_KP[None])))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Spaces:
    """Inner products of the pairs' differences: within E, of E with U, within U."""

    ee: np.ndarray
    eu: np.ndarray
    uu: np.ndarray

    def only(self, pairs: np.ndarray) -> "_Spaces":
        here = np.ix_(pairs, pairs)
        return _Spaces(ee=self.ee[here], eu=self.eu[here], uu=self.uu[here])

    def cosines(self, e_RKP: np.ndarray, u_RKP: np.ndarray) -> np.ndarray:
        """[K, K] of weighted sums of differences, E against U, meaned over R."""
        lengths_RKK = _lengths(e_RKP, self.ee)[:, :, None] * _lengths(u_RKP, self.uu)[:, None, :]
        return np.asarray(ratio(e_RKP @ self.eu @ u_RKP.swapaxes(1, 2), lengths_RKK, otherwise=0.0).mean(axis=0))

    def agreement(self, e_FP: np.ndarray, u_FP: np.ndarray) -> np.ndarray:
        """Cosines [F] of one concept's E with its U."""
        lengths_F = _lengths(e_FP, self.ee) * _lengths(u_FP, self.uu)
        return ratio(np.einsum("fp,fp->f", e_FP @ self.eu, u_FP), lengths_F, otherwise=0.0)


def _lengths(weights: np.ndarray, gram: np.ndarray) -> np.ndarray:
    square = np.einsum("...p,...p->...", weights @ gram, weights)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def _cosines(gram: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines [P, P] of the differences of rows `second` - `first`; 0 with a difference that vanishes."""
    products = gram[np.ix_(second, second)] - gram[np.ix_(second, first)]
    products += gram[np.ix_(first, first)] - gram[np.ix_(first, second)]
    square = np.diagonal(products)
    rounding = ROUNDING * (np.diagonal(gram)[first] + np.diagonal(gram)[second])
    length = np.sqrt(np.where(square > rounding, square, 0.0))
    return ratio(products, np.outer(length, length), otherwise=0.0)


def _apart(groups: np.ndarray) -> np.ndarray:
    """True [P, P] for two pairs that share no word."""
    return np.asarray(groups[:, None] != groups)


def _mean_cosines(cosines_PP: np.ndarray, apart_PP: np.ndarray, counts_BP: np.ndarray) -> np.ndarray:
    """Means [B] over two pairs apart, pair p counted `counts_BP` times; NaN without any."""
    total_B = np.einsum("bp,bp->b", counts_BP @ (cosines_PP * apart_PP), counts_BP)
    number_B = np.einsum("bp,bp->b", counts_BP @ apart_PP.astype(np.float64), counts_BP)
    return ratio(total_B, number_B, otherwise=np.nan)


def _shuffled(
    gram: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> float:
    """Mean over shuffles of second words, of two pairs that share no word on either side."""
    orders, means = [rng.permutation(len(first)) for _ in range(SHUFFLES)], []
    for order in orders:
        apart = _apart(groups) & _apart(groups[order])
        means.append(_mean_cosines(_cosines(gram, first, second[order]), apart, np.ones((1, len(first))))[0])
    return float(np.nanmean(means))


def _random(gram: np.ndarray, number: int, rng: np.random.Generator) -> float:
    """The same mean for `number` pairs of words drawn from all, each word at most once."""
    words = rng.permutation(len(gram))[: 2 * number]
    cosines = _cosines(gram, words[:number], words[number:])
    return float((cosines.sum() - np.trace(cosines)) / (number * (number - 1)))


def _filled(draws_BK: np.ndarray, otherwise_K: np.ndarray) -> np.ndarray:
    """Draws in which only one group of a concept was drawn have no value: they say nothing of its spread."""
    return np.where(np.isfinite(draws_BK), draws_BK, otherwise_K)
