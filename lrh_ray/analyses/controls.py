"""The null control of probes: shuffled labels, and the band their held-out AUC must stay in.

A probe with many features finds something in any labels. The control is a probe trained in the same way on labels that
were permuted at the level at which they vary (*units*): labels of tokens among tokens, labels of documents among
documents. Shuffling a document-level label among tokens would be too easy a null: it destroys the resemblance of rows
inside a document, which is what a document-level probe exploits by chance.

    shuffled = shuffle_labels(labels, members, documents, "document", rng)     # train and evaluate on these
    band = permutation_band(held_out_of_shuffled, levels, draws=999, seed=0)
    critical = critical_value([band, ...other sites])
    band.studentise(observed_auc)                                              # |.| <= critical: consistent with chance

Why the band is exact. The control's weights depend on the training documents only. Given the weights and all held-out
rows, hence given the scores, its held-out labels are one uniformly drawn arrangement among their units, and so is
every permuted draw: observed and drawn labels are exchangeable. All columns of one level and population move together
in a draw, and all sites see the same draws, so this holds for the maximum over columns and sites whatever their
dependence: the chance that any column leaves the band is 1 - level. (Mean and sd of a column are taken from the
draws; that, and the number of draws, changes it by a term of order 1 / draws.) Nothing is assumed about the rows:
they may be as clustered as they like.

What can go wrong: with few units, a level of 0.95 needs more arrangements than there are. Two documents have two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrh_ray.analyses.auc import midranks
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.layouts import Documents, Draws, ProbeFloats
from lrh_ray.analyses.metrics import document_sums
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import ConfigError, NotEnoughData
from lrh_ray.layouts import Labels64, RowMask

Level = Literal["token", "document"]

CHUNK_FLOATS = 1 << 20
"""Largest temporary in numbers: draws are made in chunks of this size over units."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NullBand:
    """Held-out AUC under permuted labels: all draws [B, K] and, per probe, mean, sd and pointwise 95 % ends.

    `sd` is 0 where every arrangement gives one value; such a probe cannot be rejected. NaN where a class is missing.
    """

    draws: Draws
    mean: ProbeFloats
    sd: ProbeFloats
    low: ProbeFloats
    high: ProbeFloats

    def studentise(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / sd for AUCs [..., K]; 0 where there is no spread."""
        return ratio(values - self.mean, self.sd, otherwise=0.0)


def shuffle_labels(
    labels: Labels64, members: RowMask, documents: Documents, level: Level, rng: np.random.Generator
) -> Labels64:
    """Permute the labels [N, m] of one concept among the units of its population; other rows keep theirs.

    The m columns (the classes of one concept) move together. Rows of a document-level label that are members must
    agree.

    Raises:
        ValueError: a document-level label varies inside a document.
    """
    inside = np.flatnonzero(members)
    unit, unit_labels = _unit_labels(labels[inside], documents[inside], level)
    shuffled = labels.copy()
    shuffled[inside] = unit_labels[rng.permutation(len(unit_labels))][unit]
    return shuffled


def permutation_band(held_out: HeldOut, levels: Sequence[Level], draws: int, seed: int) -> NullBand:
    """Null band of held-out AUC: `levels` [C] says at which level each label column is permuted.

    Ranks are computed once per probe; a draw is then one row of a matrix product. Costs draws * rows per label column.

    Raises:
        NotEnoughData: a population has no held-out row.
        ConfigError: fewer than 20 draws, too few for a 95 % level.
    """
    if draws < 20:
        raise ConfigError(f"A permutation band of {draws!r} draws has no 95 % level; use at least 20, better 999.")
    result = np.full((draws, held_out.scores.shape[1]), np.nan)
    for level, population, probes in _families(held_out, levels):
        result[:, probes] = _permuted_auc(held_out, level, population, probes, draws, seed)
    low, high = np.quantile(result, [0.025, 0.975], axis=0)
    sd = result.std(axis=0, ddof=1)
    sd = np.where(sd > 1e-12, sd, 0.0 * sd)  # NaN stays NaN
    return NullBand(draws=result, mean=result.mean(axis=0), sd=sd, low=low, high=high)


def critical_value(bands: Sequence[NullBand], level: float = 0.95) -> float:
    """Max-T critical value over all probes of all bands (one per site, made with one seed).

    The smallest c that a fraction `level` of draws + 1 do not exceed, so that rejecting where |studentised AUC| > c
    has a family-wise error of at most 1 - level.
    """
    largest = np.max(
        [np.nan_to_num(np.abs(band.studentise(band.draws))).max(axis=1, initial=0.0) for band in bands], axis=0
    )
    rank = int(np.ceil(level * (len(largest) + 1)))
    return float(np.sort(largest)[rank - 1]) if rank <= len(largest) else float("inf")


def _families(held_out: HeldOut, levels: Sequence[Level]) -> Iterator[tuple[Level, int, np.ndarray]]:
    """Probes that are permuted together: one level and one population."""
    families: dict[tuple[Level, int], list[int]] = {}
    for k, column in enumerate(held_out.columns.tolist()):
        families.setdefault((levels[column], int(held_out.populations[column])), []).append(k)
    for (level, population), probes in families.items():
        yield level, population, np.array(probes)


def _permuted_auc(
    held_out: HeldOut, level: Level, population: int, probes: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """AUC [B, k] of the family's probes under joint permutations of its units."""
    inside = np.flatnonzero(held_out.members[:, population])
    if len(inside) == 0:
        raise NotEnoughData(f"Population {population} has no held-out rows; hold out more documents.")
    columns, column_of_probe = np.unique(held_out.columns[probes], return_inverse=True)
    unit, labels_UC = _unit_labels(held_out.labels[np.ix_(inside, columns)], held_out.documents[inside], level)
    U = len(labels_UC)
    ranks_NK = np.stack([midranks(held_out.scores[inside, k]) for k in probes], axis=1)
    ranks_UK, size_U = document_sums(ranks_NK, unit, U), np.bincount(unit, minlength=U).astype(np.float64)
    rng = np.random.default_rng([seed, population, level == "document"])
    result = np.empty((draws, len(probes)))
    for chunk in _chunks(draws, U):
        order_BU = rng.permuted(np.tile(np.arange(U), (chunk.stop - chunk.start, 1)), axis=1)
        for c in range(len(columns)):
            of_column = np.flatnonzero(column_of_probe == c)
            permuted_BU = labels_UC[:, c][order_BU]
            num_positive = (permuted_BU @ size_U)[:, None]
            result[chunk, of_column] = _auc_from_ranks(permuted_BU @ ranks_UK[:, of_column], num_positive, len(inside))
    return result


def _auc_from_ranks(rank_sum: np.ndarray, num_positive: np.ndarray, num_rows: int) -> np.ndarray:
    """Mann-Whitney: AUC from the rank sum of the positives; NaN where a class is missing."""
    pairs = num_positive * (num_rows - num_positive)
    wins = rank_sum - num_positive * (num_positive + 1) / 2
    return ratio(wins, pairs, otherwise=np.nan)


def _unit_labels(labels: Labels64, documents: Documents, level: Level) -> tuple[np.ndarray, np.ndarray]:
    """(unit of every row [N], labels of every unit [U, m]): rows themselves, or their documents."""
    if level == "token":
        return np.arange(len(labels)), labels
    _, first, unit = np.unique(documents, return_index=True, return_inverse=True)
    if not (labels[first][unit] == labels).all():
        raise ValueError("A document-level label varies inside a document; permute it at the token level.")
    return unit, labels[first]


def _chunks(draws: int, num_units: int) -> Iterator[slice]:
    step = max(1, CHUNK_FLOATS // max(1, num_units))
    for start in range(0, draws, step):
        yield slice(start, min(start + step, draws))
