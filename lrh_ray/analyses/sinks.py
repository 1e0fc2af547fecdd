"""Attention sinks: rows whose norm exceeds 10 times the median norm of their site.

The first position of many models carries a norm a hundred times the others' and dominates every second moment, so
such rows are counted and can be left out by name. The median is exact, needs no sorting and constant memory: the bits
of a non-negative float32, read as an integer, order like its value. One pass counts the upper 16 bits of every norm,
a second the lower 16 bits of the norms in the bin that holds the median.

    first = merge_tree(NormHistogram.of(row_norms(rows)) for rows in blocks)
    upper, rank = first.locate(first.median_rank)
    second = merge_tree(NormHistogram.of(row_norms(rows), upper) for rows in blocks)
    threshold = sink_threshold(second.norm_at(rank))
    keep = row_norms(rows) <= threshold

The median here is the *lower* median, the element of rank (n - 1) // 2 in ascending order: an actual norm of the
site, the same under any split of the rows.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import Histogram, Norms
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Rows

SINK_FACTOR = 10.0


def row_norms(rows: Rows) -> Norms:
    """Euclidean norms [N] as float32, accumulated in float64."""
    norms = np.empty(len(rows), dtype=np.float32)
    for tile in tile_slices(len(rows)):
        x = rows[tile].astype(np.float64)
        norms[tile] = np.sqrt(np.einsum("nd,nd->n", x, x))
    return norms


def sink_threshold(median_norm: float) -> float:
    """Norm above which a row counts as an attention sink."""
    return SINK_FACTOR * median_norm


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NormHistogram:
    """Mergeable counts [65536] of the upper 16 bits of norms, or of the lower 16 bits of those whose upper are
    `upper`."""

    upper: int | None
    counts: Histogram

    @classmethod
    def of(cls, norms: Norms, upper: int | None = None) -> "NormHistogram":
        """Count one block of float32 norms; NaN counts as larger than infinity."""
        bits = np.abs(norms.astype(np.float32, copy=False)).view(np.uint32)
        digits = bits >> 16 if upper is None else bits[bits >> 16 == upper] & 0xFFFF
        return cls(upper=upper, counts=np.bincount(digits, minlength=1 << 16))

    def merge(self, other: "NormHistogram") -> "NormHistogram":
        """Add the counts.

        Raises:
            ValueError: the histograms belong to different bins.
        """
        if self.upper != other.upper:
            raise ValueError(f"Histograms of bins {self.upper!r} and {other.upper!r} cannot be merged.")
        return NormHistogram(upper=self.upper, counts=self.counts + other.counts)

    @property
    def median_rank(self) -> int:
        """Rank of the lower median, from 0.

        Raises:
            NotEnoughData: there are no rows.
        """
        total = int(self.counts.sum())
        if total == 0:
            raise NotEnoughData("There are no rows, so there is no median norm.")
        return (total - 1) // 2

    def locate(self, rank: int) -> tuple[int, int]:
        """The bin that holds the element of this rank, and its rank inside the bin."""
        below = np.cumsum(self.counts)
        digit = int(np.searchsorted(below, rank, side="right"))
        return digit, rank - int(below[digit] - self.counts[digit])

    def norm_at(self, rank: int) -> float:
        """The norm of this rank inside a second-pass histogram.

        Raises:
            ValueError: this is a first-pass histogram.
        """
        if self.upper is None:
            raise ValueError("A first-pass histogram knows no norms; count again with `upper`.")
        digit, _ = self.locate(rank)
        return float(np.array([self.upper << 16 | digit], dtype=np.uint32).view(np.float32)[0])
