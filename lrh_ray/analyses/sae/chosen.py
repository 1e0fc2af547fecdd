"""Some latents for people to look at: chosen by a rule that leaves nothing to taste, and rows that are shown of them.

    latents = spread_by_density(fired, num=20, least=5)     # numbers of latents, the one that fires most first
    dense = chosen_codes(reader, rows, latents)             # [N, 20]
    strongest = TopExamples.of(Codes.of(dense), row, sequence, num_latents=20, num=5)
    chance = TopExamples.of(by_chance(Codes.of(dense), row, seed=0), row, sequence, num_latents=20, num=8)

Latents that somebody picks are the ones that make sense; latents drawn by density alone are what there is. Those that
fire often enough are ranked by how often they do, the ranking is cut into equal parts, and the middle one of each part
is shown.

The largest codes are the tail of a latent. Beside them stand rows that are drawn from all it fires in: the rows whose
hashed numbers are largest, which any split of the rows over workers agrees on.

What can go wrong: a latent of fewer rows than `least` is never shown, however clear it is.
"""

import numpy as np

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.layouts import Rows

_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_STEP = 0x9E3779B97F4A7C15


def spread_by_density(fired: np.ndarray, *, num: int, least: int) -> np.ndarray:
    """Numbers of at most `num` latents, from the numbers of rows that each fires in [M].

    Of those that fire in `least` rows or more, ranked by that (of equal ones the first comes first), the middle one of
    each of `num` equal parts; all, if there are no more than `num`.
    """
    living = np.flatnonzero(fired >= max(least, 1))
    ranked = living[np.argsort(-fired[living], kind="stable")]
    if len(ranked) <= num:
        return ranked
    middles = (2 * np.arange(num) + 1) * len(ranked) // (2 * num)
    return np.asarray(ranked[middles])


def chosen_codes(reader: Reader, rows: Rows, latents: np.ndarray) -> np.ndarray:
    """Codes [N, K] of some latents [K] for rows [N, D], float32; a tile has the codes of all latents in memory."""
    return np.concatenate([codes[:, latents] for _, codes in codes_by_tile(reader, rows)])


def by_chance(codes: Codes, rows: np.ndarray, *, seed: int) -> Codes:
    """The same rows and latents with values in (0, 1] that depend on the number of the row [N] and the seed alone."""
    drawn = (_mixed(rows.astype(np.uint64), seed) >> np.uint64(40)).astype(np.float32)
    value = np.broadcast_to(((drawn + 1) / np.float32(1 << 24))[:, None], codes.index.shape)
    return Codes(value=np.where(codes.mask(), value, np.float32(0)), index=codes.index, count=codes.count)


def _mixed(numbers: np.ndarray, seed: int) -> np.ndarray:
    """64 bits of each number, each of which depends on all of its bits (SplitMix64, Steele et al. 2014)."""
    mixed = numbers + np.uint64((seed + 1) * _STEP % (1 << 64))
    for shift, factor in ((30, _MIX[0]), (27, _MIX[1])):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
