"""First and second moments of the rows of one site, with every label column at once.

One pass gives what ridge, LDA, the metric of the logistic solver and the penalties need: per population the count,
mean and covariance, per label column the number and the mean of its positive rows. All of it is two products of the
augmented rows x~ = [x - shift, 1], one with themselves and one with the labels, so a state is two arrays and merging
is addition.

    state = merge_tree(
        LabelledMoments.of(rows, shift, labels, members, populations) for rows, labels, members in blocks
    )
    moments = state.finalize()

What can go wrong: the shift must be the same array for all blocks and lie near the mean (of the first block, say); a
shift far from the mean costs digits of the covariance, about 2 log10(|mean - shift| / standard deviation) of 16. A
row that is not finite spoils the populations it belongs to; rows outside every population are never touched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrh_ray.analyses.layouts import (
    AugmentedColumns,
    AugmentedGrams,
    ColumnInts,
    ColumnSums,
    Members,
    Penalties,
    PopulationCounts,
    PopulationGrams,
    PopulationMeans,
)
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.analyses.tiles import (
    TILE_DTYPES,
    TILE_ROWS,
    Precision,
    centre,
    rounded_shift,
    select,
    tile_slices,
)
from lrh_ray.errors import ConfigError, NotEnoughData
from lrh_ray.layouts import Columns64, Feature64, Labels64, Rows

EVEN = 8
"""Widths of products are multiples of it: a vector register of float32."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledMoments:
    """Mergeable sums over rows, float64. Merge only states of one site made with the same shift and populations.

    `grams[p]` is the sum of x~ x~^T over the rows of population p: shifted second moments, with the sum of shifted rows
    in its last row and the count in its corner. `positives[:, c]` is the sum of x~ over the positive rows of column c
    inside its population; its last entry is their number.
    """

    shift: Feature64
    populations: ColumnInts
    grams: AugmentedGrams
    positives: AugmentedColumns

    @classmethod
    def of(
        cls,
        rows: Rows,
        shift: Feature64,
        labels: Labels64,
        members: Members,
        populations: ColumnInts,
        precision: Precision = "exact",
    ) -> "LabelledMoments":
        """Summarise one block: rows [N, D] of any float type, labels [N, C] of 0/1, members [N, P], populations [C].

        Labels of rows outside a column's population are ignored. C may be 0. Costs one triangular product of the rows
        with themselves, N D^2 FLOP, however many populations share a row; `precision` says in which type (`tiles`).
        """
        D, P, C = rows.shape[1], members.shape[1], len(populations)
        grams = np.zeros((P, D + 1, D + 1))
        positives = np.zeros((D + 1, C))
        buffer = _buffer(len(rows), D, C, precision)
        for tile in tile_slices(len(rows)):
            for inside, keep in _patterns(members[tile]):
                kept = select(rows[tile], keep)
                side_by_side = buffer[: len(kept)]
                centre(kept, shift, side_by_side[:, :D])
                own = side_by_side[:, D + 1 : D + 1 + C]
                np.multiply(select(labels[tile], keep), inside[populations], out=own, casting="same_kind")
                gram, sums = _products(side_by_side, D + 1, C)
                for p in np.flatnonzero(inside):
                    grams[p] += gram
                positives += sums
        used = rounded_shift(shift, precision)
        return cls(shift=used, populations=populations, grams=grams, positives=positives)

    def merge(self, other: "LabelledMoments") -> "LabelledMoments":
        return LabelledMoments(
            shift=self.shift,
            populations=self.populations,
            grams=self.grams + other.grams,
            positives=self.positives + other.positives,
        )

    def finalize(self, names: Sequence[str] = ()) -> "Moments":
        """Means and covariances; `names` of the populations are for messages.

        Raises:
            NotEnoughData: a population has fewer than 2 rows, or rows that are not finite.
        """
        count = self.grams[:, -1, -1]
        for p in range(len(count)):
            name = repr(names[p]) if names else str(p)
            if count[p] < 2:
                raise NotEnoughData(f"Population {name} has {count[p]:.0f} rows; a covariance needs at least 2.")
            if not np.isfinite(self.grams[p]).all():
                raise NotEnoughData(
                    f"Population {name} holds rows that are not finite, so it has no mean; leave such rows out of it."
                )
        offset = self.grams[:, -1, :-1] / count[:, None]
        second = self.grams[:, :-1, :-1] / count[:, None, None]
        num_positive = self.positives[-1]
        return Moments(
            shift=self.shift,
            count=count.astype(np.int64),
            offset=offset,
            covariance=second - offset[:, :, None] * offset[:, None, :],
            populations=self.populations,
            positives=num_positive.astype(np.int64),
            positive_offset=self.positives[:-1] / np.maximum(num_positive, 1),
        )


def _buffer(num_rows: int, num_features: int, num_labels: int, precision: Precision) -> np.ndarray:
    """Memory for a tile of [x, 1, y] side by side, and columns of zeros up to an even width."""
    width = -(-(num_features + 1 + num_labels) // EVEN) * EVEN
    buffer = np.zeros((min(num_rows, TILE_ROWS), width), TILE_DTYPES[precision])
    buffer[:, num_features] = 1.0
    return buffer


def _products(side_by_side: np.ndarray, width: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of [x, 1] with itself and with the labels.

    With one buffer on both sides NumPy computes one triangle (syrk), and a few more columns of it cost less than a
    narrow product of their own; many labels do not.
    """
    if num_labels < width:
        whole = side_by_side.T @ side_by_side
        return whole[:width, :width], whole[:width, width : width + num_labels]
    x, y = side_by_side[:, :width], side_by_side[:, width : width + num_labels]
    return x.T @ x, x.T @ y


def _patterns(members: Members) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(populations [P], rows [N]) of every distinct membership pattern with at least one population.

    Rows of one pattern enter all its populations through one product, so overlapping populations cost no more.
    """
    if members.size and members.all():  # the usual case; finding patterns costs as much as a small product
        yield members[0], members[:, 0]
        return
    for inside in np.unique(members, axis=0):
        if inside.any():
            yield inside, (members == inside).all(axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Finished moments of one site. No slots, because the eigendecompositions are kept once computed.

    Offsets are relative to `shift`, where they carry the most digits. Covariances divide by n (maximum likelihood),
    not n - 1: the objectives of all probes are means over rows.
    """

    shift: Feature64
    count: PopulationCounts
    offset: PopulationMeans
    covariance: PopulationGrams
    populations: ColumnInts
    positives: ColumnInts
    positive_offset: ColumnSums

    @property
    def mean(self) -> PopulationMeans:
        """Means of the rows as they are [P, D]."""
        return np.asarray(self.shift + self.offset)

    @property
    def rate(self) -> Columns64:
        """Share of positive rows of each column in its population [C]."""
        return np.asarray(self.positives / self.count[self.populations])

    @property
    def cross_covariance(self) -> ColumnSums:
        """Covariance of each feature with each 0/1 label [D, C]: rate * (mean of positives - mean)."""
        return np.asarray(self.rate * (self.positive_offset - self.offset[self.populations].T))

    @cached_property
    def spectra(self) -> tuple[Spectrum, ...]:
        """Eigendecomposition of every population's covariance; O(D^3) at first use, then shared by all fits."""
        return tuple(Spectrum.of(covariance) for covariance in self.covariance)


def absolute_penalties(moments: Moments, relative: Sequence[float]) -> Penalties:
    """Penalties [C, L] in units of each column's objective: relative * trace(covariance) / D.

    A bare number would mean something else at every site: feature variances of a residual stream grow by orders of
    magnitude over the layers. Relative to the mean feature variance, 1 is heavy and 1e-6 is nearly none, everywhere.
    """
    if not all(np.isfinite(value) and value > 0 for value in relative):
        raise ConfigError(f"Relative penalties are {list(relative)!r}; each must be a finite number above 0.")
    variance = np.trace(moments.covariance, axis1=1, axis2=2) / len(moments.shift)
    return np.outer(variance[moments.populations], np.asarray(relative, dtype=np.float64))


def require_two_classes(moments: Moments, names: Sequence[str] = ()) -> None:
    """Refuse label columns that are constant in their population.

    Raises:
        NotEnoughData: a column, named where names are given, has only one class.
    """
    count = moments.count[moments.populations]
    for c in range(len(count)):
        if not 0 < moments.positives[c] < count[c]:
            name = repr(names[c]) if names else f"number {c}"
            raise NotEnoughData(
                f"Label column {name} has {moments.positives[c]} positive rows among {count[c]}; a probe needs rows "
                "of both classes. Leave the column out, or add documents that have the other class."
            )


def shared_population(moments: Moments, columns: np.ndarray) -> int:
    """The population whose rows the label columns divide into classes: exactly one of them is 1 in every row.

    Raises:
        NotEnoughData: a class has no rows.
        ValueError: the columns do not partition one population.
    """
    populations = np.unique(moments.populations[columns])
    if len(populations) != 1 or moments.positives[columns].sum() != moments.count[populations].sum():
        raise ValueError(
            f"Columns {columns.tolist()!r} are not the classes of one population: each row needs exactly one."
        )
    if not moments.positives[columns].all():
        empty = columns[moments.positives[columns] == 0].tolist()
        raise NotEnoughData(f"Label columns {empty!r} have no rows in their population; leave these classes out.")
    return int(populations[0])
