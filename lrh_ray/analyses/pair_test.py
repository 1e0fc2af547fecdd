"""Do probe weights point where counterfactual pairs differ? The pair test of 2503.08980, as published and honestly.

A concept is a set of word pairs that differ in it (king, queen). `A_s` is the direction of the mean difference, `W_s`
that of a logistic probe that tells first from second words. If a model's representation were the log-posterior of its
concepts up to a linear map, then A_s W_s = I: each concept's weights agree with its own differences and no other's.

    table = PairTable.of(concepts, words)                    # which words make which pairs, and which share a word
    replica(gram, table, inverse_penalty=1e-4)               # [K, K] cosines as published
    honest = split_half_test(gram, table, inverse_penalty=1e-4, repeats=20, draws=100, seed=0)
    honest.diagonal, honest.low, honest.high, honest.p_values

**Why the published figure is no evidence.** Both directions are taken from the same words, fewer than dimensions. A
probe on n < d rows can follow their noise, and with C = 1e-4 it IS the mean difference (see `kernel_logistic`): pure
Gaussian noise has a diagonal above .95. Here A_s comes from one half of the words and W_s from the other; noise then
has a diagonal of 0. Words that several pairs share, through any concept, go to one half together.

Everything is a function of the words' inner products, so the metric is a Gram matrix (`pair_metrics`) and the width of
the model costs nothing. Rows are all first words, then all second words.

What can go wrong: a concept with fewer than `MIN_GROUPS` independent groups of words cannot be halved, and is not
judged (NaN). Intervals resample groups of words: other words of the same kind, not other kinds of words. They take the
spread of the draws, not their place, which lies too low.

Legend: P pairs, K concepts, G groups of words, R repeats, F fits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lrh_ray.analyses.kernel_logistic import fit_kernel_logistic
from lrh_ray.analyses.layouts import ConceptFloats, ConceptMask, ConceptMatrix, NullDraws, PairInts, RowGram
from lrh_ray.analyses.multiplicity import max_t_p_values
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import NotEnoughData

MIN_GROUPS = 4
SPLITS_PER_DRAW = 4
"""Splits that are averaged in each draw of the null and of the bootstrap."""
MAX_TRIES = 1000
ROUNDING = 1e-13


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairTable:
    """P pairs: the concept of each and its group of words. Rows p and P + p of the Gram matrix are its two words."""

    concepts: tuple[str, ...]
    concept: PairInts
    group: PairInts

    @classmethod
    def of(cls, concepts: Sequence[str], words: Sequence[tuple[str, str]]) -> "PairTable":
        """From each pair's concept and words.

        Raises:
            NotEnoughData: No pairs.
        """
        if not words:
            raise NotEnoughData("There are no word pairs to test; give the store documents of a `word-pairs` source.")
        names = tuple(dict.fromkeys(concepts))
        number = {name: index for index, name in enumerate(names)}
        return cls(concepts=names, concept=np.array([number[name] for name in concepts]), group=word_groups(words))

    @property
    def num_pairs(self) -> int:
        return len(self.concept)

    def pairs_of(self, concept: int) -> PairInts:
        return np.flatnonzero(self.concept == concept)

    @property
    def judged(self) -> ConceptMask:
        """Concepts with enough groups of words to be halved."""
        groups = [len(np.unique(self.group[self.pairs_of(concept)])) for concept in range(len(self.concepts))]
        return np.array(groups) >= MIN_GROUPS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitHalfTest:
    """Cosines of directions from different words; NaN for concepts that were not judged.

    `cosines` [K, K]: rows A_s, columns W_s, means over repeats. The diagonal has 95 % intervals over groups of words, a
    null of swapped pairs [draws, K], and p values adjusted for all concepts.
    """

    cosines: ConceptMatrix
    low: ConceptFloats
    high: ConceptFloats
    null: NullDraws
    p_values: ConceptFloats

    @property
    def diagonal(self) -> ConceptFloats:
        return np.asarray(np.diagonal(self.cosines))


def word_groups(words: Sequence[tuple[str, str]]) -> PairInts:
    """Number of the group of each pair: pairs that share a word, directly or through others, are one group."""
    number = {word: index for index, word in enumerate(dict.fromkeys(word for pair in words for word in pair))}
    ends = np.array([(number[first], number[second]) for first, second in words])
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(number), len(number)))
    _, component = connected_components(graph, directed=False)
    _, group = np.unique(component[ends[:, 0]], return_inverse=True)
    return np.asarray(group, np.int64)


def replica(gram: RowGram, table: PairTable, *, inverse_penalty: float) -> ConceptMatrix:
    """Cosines of mean differences (rows) with probe weights (columns), both from all words: the published procedure."""
    a_KN, w_KN = (np.zeros((len(table.concepts), 2 * table.num_pairs)) for _ in range(2))
    for concept, pairs, rows in _concepts(table, range(len(table.concepts))):
        everyone = np.ones((1, len(pairs)))
        a_KN[concept, rows] = _difference(everyone)[0]
        w_KN[concept, rows] = _weights(gram[np.ix_(rows, rows)], everyone, everyone, inverse_penalty)[0]
    return np.asarray(_cosines(a_KN[None], w_KN[None], gram)[0])


def split_half_cosines(
    gram: RowGram, table: PairTable, *, inverse_penalty: float, repeats: int, seed: int
) -> ConceptMatrix:
    """Cosines [K, K] of A_s from one half of the words with W_s from the other, meaned over `repeats` random halves.

    Raises:
        NotEnoughData: No concept has `MIN_GROUPS` groups of words.
    """
    num, judged = len(table.concepts), np.flatnonzero(table.judged)
    if not len(judged):
        raise NotEnoughData(f"No concept has {MIN_GROUPS} groups of words without a word in common; add pairs.")
    cosines = np.full((num, num), np.nan)
    rng = np.random.default_rng([seed, 0])
    cosines[np.ix_(judged, judged)] = _mean_cosines(gram, table, judged, inverse_penalty, repeats, rng)
    return cosines


def split_half_test(
    gram: RowGram, table: PairTable, *, inverse_penalty: float, repeats: int, draws: int, seed: int
) -> SplitHalfTest:
    """`split_half_cosines` with intervals and a null.

    The null swaps the words of random pairs; every draw averages a few splits, fewer than the estimate, which makes it
    somewhat wider than it should be.

    Raises:
        NotEnoughData: No concept has `MIN_GROUPS` groups of words.
    """
    cosines = split_half_cosines(gram, table, inverse_penalty=inverse_penalty, repeats=repeats, seed=seed)
    num, judged = len(table.concepts), np.flatnonzero(table.judged)
    rng = np.random.default_rng([seed, 1])
    null, resampled = np.full((draws, num), np.nan), np.full((draws, num), np.nan)
    splits_FG = halves(table, judged, draws * SPLITS_PER_DRAW, rng)
    swaps_BG = rng.integers(0, 2, (draws, table.num_pairs)) * 2.0 - 1.0
    for concept, pairs, rows in _concepts(table, judged):
        own, groups = gram[np.ix_(rows, rows)], table.group[pairs]
        halves_FP = splits_FG[:, groups]
        signs_FP = np.repeat(swaps_BG[:, pairs], SPLITS_PER_DRAW, axis=0)
        null[:, concept] = per_draw(_diagonal(own, halves_FP, ~halves_FP, signs_FP, inverse_penalty))
        counts_FP, halves_FP = resampled_halves(groups, draws, rng)
        ones = np.ones_like(counts_FP)
        a_FP, w_FP = counts_FP * halves_FP, counts_FP * ~halves_FP
        resampled[:, concept] = per_draw(_diagonal(own, a_FP, w_FP, ones, inverse_penalty))
    low, high, p_values = (np.full(num, np.nan) for _ in range(3))
    low[judged], high[judged] = interval_around(np.diagonal(cosines)[judged], resampled[:, judged])
    p_values[judged] = max_t_p_values(np.diagonal(cosines)[judged], null[:, judged])
    return SplitHalfTest(cosines=cosines, low=low, high=high, null=null, p_values=p_values)


def _concepts(
    table: PairTable, concepts: Sequence[int] | np.ndarray | range
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(concept, its pairs, their rows: first words, then second words)."""
    for concept in np.asarray(concepts).tolist():
        pairs = table.pairs_of(concept)
        yield concept, pairs, np.concatenate([pairs, table.num_pairs + pairs])


def _mean_cosines(
    gram: np.ndarray,
    table: PairTable,
    judged: np.ndarray,
    inverse_penalty: float,
    repeats: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[judged, judged] cosines, meaned over splits that all concepts share."""
    splits_RG = halves(table, judged, repeats, rng)
    a_RKN, w_RKN = (np.zeros((repeats, len(judged), len(gram))) for _ in range(2))
    for place, (_, pairs, rows) in enumerate(_concepts(table, judged)):
        halves_RP = splits_RG[:, table.group[pairs]]
        signs_RP = np.ones(halves_RP.shape)
        a_RKN[:, place, rows] = _difference(signs_RP * halves_RP)
        w_RKN[:, place, rows] = _weights(gram[np.ix_(rows, rows)], ~halves_RP, signs_RP, inverse_penalty)
    return np.asarray(_cosines(a_RKN, w_RKN, gram).mean(axis=0))


def halves(table: PairTable, judged: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, G] random halves of the groups such that every judged concept has pairs in both."""
    num_groups = int(table.group.max()) + 1
    member_KG = np.array(
        [np.bincount(table.group[table.pairs_of(k)], minlength=num_groups) > 0 for k in judged.tolist()]
    )
    found = np.zeros((number, num_groups), dtype=bool)
    pending = np.arange(number)
    for _ in range(MAX_TRIES):
        order = np.argsort(rng.random((len(pending), num_groups)), axis=1)
        found[pending] = order < num_groups // 2
        inside = found[pending].astype(np.float64) @ member_KG.T
        pending = pending[((inside == 0) | (inside == member_KG.sum(axis=1))).any(axis=1)]
        if not len(pending):
            return found
    raise NotEnoughData(
        f"The words of {len(judged)} concepts hang together so much that they cannot be halved: pairs that share a "
        f"word stay together. Leave out concepts that share their words with all others."
    )


def resampled_halves(groups: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts [F, P] of each pair when groups are drawn with replacement, and halves of the groups drawn."""
    names, member_P = np.unique(groups, return_inverse=True)
    counts_FG, halves_FG = np.zeros((0, len(names))), np.zeros((0, len(names)), dtype=bool)
    wanted = draws * SPLITS_PER_DRAW
    while len(counts_FG) < wanted:
        drawn_BG = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws).astype(np.float64)
        drawn_FG = np.repeat(drawn_BG[(drawn_BG > 0).sum(axis=1) > 1], SPLITS_PER_DRAW, axis=0)
        order_FG = np.argsort(np.where(drawn_FG > 0, rng.random(drawn_FG.shape), 2.0), axis=1).argsort(axis=1)
        halves_FG = np.concatenate([halves_FG, order_FG < (drawn_FG > 0).sum(axis=1, keepdims=True) // 2])
        counts_FG = np.concatenate([counts_FG, drawn_FG])
    return counts_FG[:wanted, member_P], halves_FG[:wanted, member_P]


def interval_around(estimates: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Ends [2, K] of 95 % intervals: the spread of the draws around the estimate, on the scale of arctanh.

    Words drawn with replacement are fewer words, and agree less; plain percentiles would lie below the estimate.
    """
    limit = 1 - np.finfo(np.float64).eps
    z_BK, z_K = (np.arctanh(np.clip(values, -limit, limit)) for values in (draws, estimates))
    return np.asarray(np.tanh(np.quantile(z_BK - np.median(z_BK, axis=0) + z_K, [0.025, 0.975], axis=0)))


def per_draw(cosines_F: np.ndarray) -> np.ndarray:
    return np.asarray(cosines_F.reshape(-1, SPLITS_PER_DRAW).mean(axis=1))


def _diagonal(
    gram: np.ndarray, a_FP: np.ndarray, w_FP: np.ndarray, signs_FP: np.ndarray, inverse_penalty: float
) -> np.ndarray:
    """Cosine [F] of one concept's two directions: pairs counted `a_FP` and `w_FP` times, swapped at the sign -1."""
    a_FN = _difference(signs_FP * a_FP)
    w_FN = _weights(gram, w_FP, signs_FP, inverse_penalty)
    return np.asarray(_cosines(a_FN[:, None], w_FN[:, None], gram)[:, 0, 0])


def _difference(counts_FP: np.ndarray) -> np.ndarray:
    """Coefficients [F, 2P] of the mean difference, up to a factor: + on first words, - on second."""
    return np.concatenate([counts_FP, -counts_FP], axis=1)


def _weights(gram: np.ndarray, counts_FP: np.ndarray, signs_FP: np.ndarray, inverse_penalty: float) -> np.ndarray:
    """Coefficients [F, 2P] of the probe that tells first words (1) from second."""
    first_FP = (signs_FP > 0).astype(np.float64)
    labels_FN, counts_FN = np.concatenate([first_FP, 1 - first_FP], axis=1), np.tile(counts_FP.astype(np.float64), 2)
    return fit_kernel_logistic(gram, labels_FN, counts_FN, inverse_penalty=inverse_penalty).coefficients


def _cosines(a_RKN: np.ndarray, w_RKN: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """[R, K, K] of directions given by coefficients on the rows; 0 with a direction that vanishes."""
    norms_RKK = _norms(a_RKN, gram)[:, :, None] * _norms(w_RKN, gram)[:, None, :]
    return ratio(a_RKN @ gram @ w_RKN.swapaxes(1, 2), norms_RKK, otherwise=0.0)


def _norms(coefficients_RKN: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Lengths [R, K]; 0 at rounding level, where words have the same rows."""
    square_RK = np.einsum("rkn,rkn->rk", coefficients_RKN @ gram, coefficients_RKN)
    rounding_RK = ROUNDING * np.abs(coefficients_RKN).sum(axis=2) ** 2 * np.diagonal(gram).max()
    return np.asarray(np.sqrt(np.where(square_RK > rounding_RK, square_RK, 0.0)))
