"""Second moments of two sets of features on the same rows, kept apart by groups of rows.

Whether two representations agree up to a linear map, a rotation or a permutation is a question about their joint
covariance. One pass gives it, for every group of rows at once (a fold, a part of the documents), as one augmented Gram
matrix per group; cross-validation, jackknife and bootstrap then add and subtract groups and read no row again.

    state = merge_tree(JointMoments.of(x, y, shift=shift, groups=groups, num_groups=5) for x, y, groups in blocks)
    train, held_out = state.joint(1 - fold), state.joint(fold)      # weights of the groups, [G]
    r_squared(fit_linear(train), held_out)

Each row is z = [x - shift, y - shift, |x|^2, |y|^2, 1] with the norms taken after the shift. The squared norms make
unbiased similarities a matter of moments too.

What can go wrong: the shift must be the same for all blocks and lie near the mean; a row that is not finite spoils its
group. `fast` products (`tiles`) cost digits of the covariance.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import BothFeatures, GroupFloats, GroupIndex, JointGram, JointGrams, RowWeights
from lrh_ray.analyses.tiles import TILE_DTYPES, TILE_ROWS, Precision, rounded_shift, tile_slices
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Feature64, Gram64, Rows

NORMS_AND_ONE = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JointMoments:
    """Mergeable sums of z z^T of every group, float64. Merge only states with one shift and split.

    `num_x` is the number of features of x; those of y follow.
    """

    shift: BothFeatures
    num_x: int
    grams: JointGrams

    @classmethod
    def of(
        cls,
        x: Rows,
        y: np.ndarray,
        *,
        shift: BothFeatures,
        groups: GroupIndex,
        num_groups: int = 1,
        weights: RowWeights | None = None,
        precision: Precision = "exact",
    ) -> "JointMoments":
        """Summarise one block: x [N, P] and y [N, Q] of any float types, groups [N] below `num_groups`.

        `weights` [N] says how often each row counts; None: once.

        Costs N (P + Q)^2 FLOP, one triangular product.

        Raises:
            ValueError: x, y and groups differ in rows, or `shift` has another length than a row of both.
        """
        if not len(x) == len(y) == len(groups) or len(shift) != x.shape[1] + y.shape[1]:
            raise ValueError(
                f"joint moments of {x.shape} and {y.shape} rows with {len(groups)} groups and a shift of {len(shift)}"
            )
        size = len(shift) + NORMS_AND_ONE
        dtype = TILE_DTYPES[precision]
        grams, buffer = np.zeros((num_groups, size, size)), np.ones((min(len(x), TILE_ROWS), size), dtype)
        for tile in tile_slices(len(x)):
            z = _augment(x[tile], y[tile], shift, buffer)
            if weights is not None:
                z = z * np.sqrt(weights[tile, None]).astype(dtype)
            here = groups[tile]
            for group in np.unique(here).tolist():
                own = z if (here == group).all() else z[here == group]
                grams[group] += own.T @ own
        return cls(shift=rounded_shift(shift, precision), num_x=x.shape[1], grams=grams)

    def merge(self, other: "JointMoments") -> "JointMoments":
        return JointMoments(shift=self.shift, num_x=self.num_x, grams=self.grams + other.grams)

    @property
    def num_groups(self) -> int:
        return len(self.grams)

    def joint(self, weights: GroupFloats | None = None) -> "Joint":
        """The moments of all rows, each group counted `weights` [G] times: 0/1 for folds, a bootstrap's counts.

        Raises:
            NotEnoughData: Fewer than 2 rows, or rows that are not finite.
        """
        weights = np.ones(self.num_groups) if weights is None else weights
        used = np.flatnonzero(weights)
        gram = np.tensordot(weights[used], self.grams[used], axes=1)
        if not np.isfinite(gram).all():
            raise NotEnoughData(
                "Some rows are not finite (or overflow when squared), so their groups have no covariance; leave such "
                "rows out."
            )
        if gram[-1, -1] < 2:
            raise NotEnoughData(f"The groups asked for hold {gram[-1, -1]:.0f} rows; a covariance needs at least 2.")
        return Joint(shift=self.shift, num_x=self.num_x, gram=gram)

    def without(self, group: int) -> "Joint":
        """All rows but those of one group: a training fold, a jackknife replicate."""
        return self.joint(1.0 - self._only(group))

    def only(self, group: int) -> "Joint":
        """The rows of one group."""
        return self.joint(self._only(group))

    def _only(self, group: int) -> GroupFloats:
        only = np.zeros(self.num_groups)
        only[group] = 1
        return only


def _augment(x: np.ndarray, y: np.ndarray, shift: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """[x - shift, y - shift, |x|^2, |y|^2, 1] in the head of `buffer`."""
    z, num_x = buffer[: len(x)], x.shape[1]
    z[:, :num_x] = x
    z[:, num_x:-NORMS_AND_ONE] = y
    z[:, :-NORMS_AND_ONE] -= shift.astype(z.dtype)
    for column, part in ((-3, z[:, :num_x]), (-2, z[:, num_x:-NORMS_AND_ONE])):
        z[:, column] = np.einsum("nd,nd->n", part, part)
    return z


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Joint:
    """Joint moments of some rows. Covariances divide by n; what needs n - 1 says so."""

    shift: BothFeatures
    num_x: int
    gram: JointGram

    @property
    def count(self) -> float:
        return float(self.gram[-1, -1])

    @property
    def mean_x(self) -> Feature64:
        return np.asarray((self.shift + self._offset)[: self.num_x])

    @property
    def mean_y(self) -> Feature64:
        return np.asarray((self.shift + self._offset)[self.num_x :])

    @property
    def xx(self) -> Gram64:
        return self._covariance(self._x, self._x)

    @property
    def xy(self) -> np.ndarray:
        """Covariance of x with y [P, Q]."""
        return self._covariance(self._x, self._y)

    @property
    def yy(self) -> Gram64:
        return self._covariance(self._y, self._y)

    @property
    def swapped(self) -> "Joint":
        """The same rows with x and y exchanged."""
        num = len(self.shift)
        order = np.r_[np.arange(self.num_x, num), np.arange(self.num_x), num + 1, num, num + 2]
        return Joint(shift=self.shift[order[:num]], num_x=num - self.num_x, gram=self.gram[np.ix_(order, order)])

    @property
    def _x(self) -> slice:
        return slice(0, self.num_x)

    @property
    def _y(self) -> slice:
        return slice(self.num_x, len(self.shift))

    @property
    def _offset(self) -> np.ndarray:
        return np.asarray(self.gram[-1, : len(self.shift)] / self.count)

    def _covariance(self, rows: slice, columns: slice) -> np.ndarray:
        offset = self._offset
        return np.asarray(self.gram[rows, columns] / self.count - np.outer(offset[rows], offset[columns]))
