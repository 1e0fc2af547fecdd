"""How well latents match supervised probes, one latent for each concept: the measure of Liu et al., and its worth.

    bound = upper_bound(logits, latents)                   # as published: chosen and scored on the same words
    honest = held_out_bound(logits, latents, groups, splits=20, seed=0)

For concept i, u_i the log-odds of a probe on the words of its pairs and z_d a latent on the same words,

    R[i, d] = Pearson(u_i, exp z_d)

An assignment of concepts to different latents maximises the sum of R (Hungarian algorithm; arXiv 2503.08980 v3, H.2;
ConCA, algorithm 1). Reported are the mean of R over concepts and coverage@0.5, the share of concepts above .5.

With tens of words and tens of thousands of latents, some latent correlates with anything: 32,768 Gaussian ones reach a
mean of about .37 on the paper's 27 concepts. The honest form chooses on half of the words (whole groups of them, a pair
at least) and scores on the others, where chance gives 0; repeated splits give its mean, and `bound_test` its interval.

What can go wrong: Pearson's r of exponentials follows the few largest values; `exponential=False` takes the codes as
they are. Latents that do not vary over a concept's words have a correlation of 0 with it.

Legend: C concepts, W words of a concept, M latents, F weightings of the words (halves, draws).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import NotEnoughData

COVERED = 0.5
TILE = 4096
CHUNK_FLOATS = 1 << 24
"""Numbers in the correlations of all concepts and latents that are held together."""
ROUNDING = 1e-12
"""Share of a latent's mean square below which its variance is rounding."""
LEAST_WORDS = 3
LEAST_GROUPS = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bound:
    """Latent of each concept [C] and their correlation [C]."""

    latents: np.ndarray
    correlations: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.correlations.mean())

    @property
    def coverage(self) -> float:
        """Share of concepts whose latent correlates above .5 with the probe."""
        return float((self.correlations > COVERED).mean())


def correlations(logits: np.ndarray, latents: np.ndarray, *, exponential: bool = True) -> np.ndarray:
    """Pearson's r [M] of one concept's logits [W] with exp of each latent [W, M], or with the latent itself."""
    everyone = np.ones((1, len(logits)))
    return np.asarray(weighted_correlations(logits[None], latents, everyone, exponential=exponential)[0])


def weighted_correlations(
    logits: np.ndarray, latents: np.ndarray, weights: np.ndarray, *, exponential: bool
) -> np.ndarray:
    """The same [F, M] with words counted `weights` [F, W] times, and logits of their own [F, W]."""
    found = np.empty((len(weights), latents.shape[1]))
    for first in range(0, latents.shape[1], TILE):
        tile = slice(first, first + TILE)
        found[:, tile] = _pearson(logits, _heights(latents[:, tile], exponential), weights, np.matmul)
    return found


def _heights(latents: np.ndarray, exponential: bool) -> np.ndarray:
    """What is correlated: a factor does not change a correlation, and lets nothing overflow."""
    own = latents.astype(np.float64)
    return np.asarray(np.exp(own - own.max(axis=0))) if exponential else own


def _pearson(
    logits: np.ndarray,
    heights: np.ndarray,
    weights: np.ndarray,
    product: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """`product` sums over words: every weighting with every column of heights, or each with its own."""
    share = weights / weights.sum(axis=1, keepdims=True)
    centred = logits - (share * logits).sum(axis=1, keepdims=True)
    mean, square = product(share, heights), product(share, heights**2)
    variance = np.where(square - mean**2 > ROUNDING * square, square - mean**2, 0.0)
    norms = (np.sqrt(variance).T * np.sqrt((share * centred**2).sum(axis=1))).T
    return ratio(product(share * centred, heights), norms, otherwise=0.0)


def _each(weights: np.ndarray, heights: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("fw,wf->f", weights, heights))


def assigned(matrix: np.ndarray) -> np.ndarray:
    """Different latents [C] for the concepts of a matrix of correlations [C, M], of the largest sum."""
    concepts, latents = linear_sum_assignment(matrix, maximize=True)
    return np.asarray(latents[np.argsort(concepts)])


def upper_bound(logits: Sequence[np.ndarray], latents: Sequence[np.ndarray], *, exponential: bool = True) -> Bound:
    """As published: every concept's logits [W] and latents [W, M] on its own words; chosen and scored on all of them.

    Raises:
        NotEnoughData: Fewer latents than concepts, or a concept of fewer than 3 words.
    """
    require_words(logits, latents)
    matrix = np.stack([correlations(u, z, exponential=exponential) for u, z in zip(logits, latents, strict=True)])
    chosen = assigned(matrix)
    return Bound(latents=chosen, correlations=matrix[np.arange(len(chosen)), chosen])


def held_out_bound(
    logits: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    *,
    splits: int,
    seed: int,
    exponential: bool = True,
) -> Sequence[Bound]:
    """Chosen on half of every concept's groups of words [W], scored on the other half; one of each split.

    Raises:
        NotEnoughData: Fewer latents than concepts, or a concept with fewer than 4 groups or 3 words in a half.
    """
    require_words(logits, latents)
    rng = np.random.default_rng(seed)
    halves = [random_halves(own, splits, rng) for own in groups]
    same = [np.broadcast_to(own, (splits, len(own))) for own in logits]
    return chosen_and_scored(same, latents, halves, [~half for half in halves], exponential=exponential)


def chosen_and_scored(
    logits: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    choosing: Sequence[np.ndarray],
    scoring: Sequence[np.ndarray],
    *,
    exponential: bool,
) -> list[Bound]:
    """A bound for each of F weightings: of each concept logits [F, W], and words' weights [F, W] for either purpose."""
    num, width = len(choosing[0]), len(logits) * latents[0].shape[1]
    step, found = max(1, CHUNK_FLOATS // width), list[Bound]()
    for first in range(0, num, step):
        some = slice(first, first + step)
        matrix = np.stack(
            [
                weighted_correlations(u[some], z, w[some].astype(np.float64), exponential=exponential)
                for u, z, w in zip(logits, latents, choosing, strict=True)
            ],
            axis=1,
        )
        chosen = np.array([assigned(own) for own in matrix])
        scores = [
            _pearson(u[some], _heights(z[:, own], exponential), w[some].astype(np.float64), _each)
            for u, z, w, own in zip(logits, latents, scoring, chosen.T, strict=True)
        ]
        found += map(_bound, chosen, np.stack(scores, axis=1))
    return found


def _bound(latents: np.ndarray, scores: np.ndarray) -> Bound:
    return Bound(latents=latents, correlations=scores)


def random_halves(groups: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, W] words of random halves of the groups [W].

    Raises:
        NotEnoughData: Fewer than 4 groups, or a half of fewer than 3 words.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < LEAST_GROUPS:
        raise NotEnoughData(
            f"A concept has {len(names)} groups of words; to choose and to score takes {LEAST_GROUPS} or more."
        )
    order = np.argsort(rng.random((number, len(names))), axis=1)
    halves = (order < len(names) // 2)[:, member]
    few = min(int(halves.sum(axis=1).min()), int((~halves).sum(axis=1).min()))
    if few < LEAST_WORDS:
        raise NotEnoughData(
            f"Half of a concept has {few} words; a correlation takes {LEAST_WORDS}. Give it more pairs."
        )
    return np.asarray(halves)


def require_words(logits: Sequence[np.ndarray], latents: Sequence[np.ndarray]) -> None:
    """Refuse what has no assignment.

    Raises:
        NotEnoughData: Fewer latents than concepts, or a concept of fewer than 3 words.
    """
    few = min(len(u) for u in logits)
    if few < LEAST_WORDS or latents[0].shape[1] < len(logits):
        raise NotEnoughData(
            f"{len(logits)} concepts with {few} words or more and {latents[0].shape[1]} latents: a correlation takes 3 "
            f"words, an assignment as many latents as concepts."
        )
