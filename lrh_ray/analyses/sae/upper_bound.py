"""How well latents match supervised probes, one latent for each concept: the measure of Liu et al., and its worth.

    bound = upper_bound(logits, latents)                   # as published: chosen and scored on the same words
    honest = held_out_bound(logits, latents, groups, splits=20, seed=0)

For concept i, u_i the log-odds of a probe on the words of its pairs and z_d a latent on the same words,

    R[i, d] = Pearson(u_i, exp z_d)

An assignment of concepts to different latents maximises the sum of R (Hungarian algorithm; arXiv 2503.08980 v3, H.2;
ConCA, algorithm 1). Reported are the mean of R over concepts and coverage@0.5, the share of concepts above .5.

With tens of words and tens of thousands of latents, some latent correlates with anything: 32,768 Gaussian ones reach a
mean of about .37 on the paper's 27 concepts. The honest form chooses on half of the words (whole groups of them, a pair
at least) and scores on the others, where chance gives 0; repeated splits give its mean.

What can go wrong: Pearson's r of exponentials follows the few largest values; `exponential=False` takes the codes as
they are. Latents that do not vary over a concept's words have a correlation of 0 with it.

Legend: C concepts, W words of a concept, M latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import NotEnoughData

COVERED = 0.5
TILE = 4096


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
    centred = logits - logits.mean()
    found = np.empty(latents.shape[1])
    for first in range(0, latents.shape[1], TILE):
        own = latents[:, first : first + TILE].astype(np.float64)
        if exponential:
            own = np.exp(own - own.max(axis=0))  # a factor does not change a correlation, and nothing overflows
        own = own - own.mean(axis=0)
        norms = np.linalg.norm(own, axis=0) * np.linalg.norm(centred)
        found[first : first + TILE] = ratio(centred @ own, norms, otherwise=0.0)
    return found


def assigned(matrix: np.ndarray) -> np.ndarray:
    """Different latents [C] for the concepts of a matrix of correlations [C, M], of the largest sum."""
    concepts, latents = linear_sum_assignment(matrix, maximize=True)
    return np.asarray(latents[np.argsort(concepts)])


def upper_bound(logits: Sequence[np.ndarray], latents: Sequence[np.ndarray], *, exponential: bool = True) -> Bound:
    """As published: every concept's logits [W] and latents [W, M] on its own words; chosen and scored on all of them.

    Raises:
        NotEnoughData: Fewer latents than concepts, or a concept of fewer than 3 words.
    """
    matrix = _matrix(logits, latents, exponential=exponential)
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
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        halves = [_half(own, rng) for own in groups]
        first = _matrix(*_part(logits, latents, halves), exponential=exponential)
        chosen = assigned(first)
        others = _part(logits, latents, [~half for half in halves])
        scores = [
            correlations(u, z[:, [latent]], exponential=exponential)[0]
            for u, z, latent in zip(*others, chosen.tolist(), strict=True)
        ]
        found.append(Bound(latents=chosen, correlations=np.array(scores)))
    return found


def _half(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Words of a random half of the groups."""
    names = rng.permutation(np.unique(groups))
    if len(names) < 4:
        raise NotEnoughData(f"A concept has {len(names)} groups of words; to choose and to score takes 4 or more.")
    return np.isin(groups, names[: len(names) // 2])


def _part(
    logits: Sequence[np.ndarray], latents: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return (
        [u[mask] for u, mask in zip(logits, masks, strict=True)],
        [z[mask] for z, mask in zip(latents, masks, strict=True)],
    )


def _matrix(logits: Sequence[np.ndarray], latents: Sequence[np.ndarray], *, exponential: bool) -> np.ndarray:
    few = min(len(u) for u in logits)
    if few < 3 or latents[0].shape[1] < len(logits):
        raise NotEnoughData(
            f"{len(logits)} concepts with {few} words or more and {latents[0].shape[1]} latents: a correlation takes 3 "
            f"words, an assignment as many latents as concepts."
        )
    return np.stack([correlations(u, z, exponential=exponential) for u, z in zip(logits, latents, strict=True)])
