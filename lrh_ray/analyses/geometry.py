"""How many directions a representation uses: matrix entropy, effective rank, coding length, information gain.

    state = merge_tree(UnitGrams.of(rows, mean, groups=groups, num_groups=10) for rows, groups in blocks)
    whole = state.spectrum()                    # all rows; or state.spectrum(weights) for a fold, a bootstrap
    whole.entropy, whole.effective_rank         # nats; exp of it
    whole.coding_length(epsilon=0.5)            # nats a row
    diff_erank(trained=whole, untrained=control)

Rows are centred, then divided by their length, so that a few long rows (attention sinks) do not decide; K is their
covariance divided by its trace. The matrix entropy -tr(K log K) is that of 2401.17139, whose code defines it so; a
representation that fills d directions evenly has log d, one that lies on a line has 0. Any rotation and any common
scale leave it as it is. Diff-eRank is the effective rank of an untrained model minus that of the trained one on the
same tokens: how much training has compressed (same source).

The coding length is the rate at which rows can be coded up to an error epsilon, 1/2 log det(I + d/epsilon^2 Cov) (Ma et
al. 2007), and the information gain of a token is the part of it that is new given its context: 1/2 log(1 + r (Z^T Z + a
I)^-1 r), the identity behind ridge regression. The gains of a sequence add up to 1/2 log det(I + Z^T Z / a).

What can go wrong: rows that equal the mean have no direction and are left out, and counted. An estimate from fewer rows
than features is too low, since N rows span N directions at most: `rows` says how many there were.

Legend: N rows, D features, G groups.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from sklearn.linear_model import lars_path

from lrh_ray.analyses.layouts import ContextRows, GroupFloats, GroupIndex, Indices, JointGrams
from lrh_ray.analyses.tiles import TILE_ROWS, tile_slices
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Feature64, Rows, Rows64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnitGrams:
    """Mergeable sums of u u^T of every group, u = (x - mean) / |x - mean|, float64. One mean for all states."""

    mean: Feature64
    grams: JointGrams
    rows: GroupFloats
    without_direction: int

    @classmethod
    def of(cls, rows: Rows, mean: Feature64, *, groups: GroupIndex, num_groups: int = 1) -> "UnitGrams":
        """Summarise one block: rows [N, D] of any float type, groups [N]. Costs N D^2 FLOP."""
        grams, counts = np.zeros((num_groups, len(mean), len(mean))), np.zeros(num_groups)
        dropped = 0
        buffer = np.empty((min(len(rows), TILE_ROWS), len(mean)))
        for tile in tile_slices(len(rows)):
            x = buffer[: tile.stop - tile.start]
            x[...] = rows[tile]
            x -= mean
            length = np.sqrt(np.einsum("nd,nd->n", x, x))
            found = length > 0
            dropped += int((~found).sum())
            with np.errstate(invalid="ignore"):  # rows that are not finite spoil their group, and `spectrum` says so
                x /= np.where(found, length, 1.0)[:, None]
            for group in np.unique(groups[tile]).tolist():
                inside = groups[tile] == group
                own = x if inside.all() else x[inside]
                grams[group] += own.T @ own
                counts[group] += float((inside & found).sum())
        return cls(mean=mean, grams=grams, rows=counts, without_direction=dropped)

    def merge(self, other: "UnitGrams") -> "UnitGrams":
        return UnitGrams(
            mean=self.mean,
            grams=self.grams + other.grams,
            rows=self.rows + other.rows,
            without_direction=self.without_direction + other.without_direction,
        )

    def spectrum(self, weights: GroupFloats | None = None) -> "UnitSpectrum":
        """Eigenvalues of K over the groups, each counted `weights` [G] times. Costs D^3.

        Raises:
            NotEnoughData: Fewer than 2 rows have a direction, or some are not finite.
        """
        weights = np.ones(len(self.rows)) if weights is None else weights
        rows, used = float(weights @ self.rows), np.flatnonzero(weights)
        gram = np.tensordot(weights[used], self.grams[used], axes=1)
        if not np.isfinite(gram).all():
            raise NotEnoughData("Some rows are not finite, so they have no spectrum; leave such rows out.")
        if rows < 2:
            raise NotEnoughData(f"{rows:.0f} rows differ from their mean; a spectrum needs at least 2.")
        values = np.clip(scipy.linalg.eigvalsh(gram), 0.0, None)
        return UnitSpectrum(values=values / values.sum(), rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnitSpectrum:
    """Eigenvalues of K, ascending; their sum is 1."""

    values: Feature64
    rows: float

    @property
    def entropy(self) -> float:
        """Matrix entropy, nats: from 0 to log D."""
        positive = self.values[self.values > 0]
        return float(-(positive * np.log(positive)).sum())

    @property
    def normalised_entropy(self) -> float:
        """Entropy as a share of log D."""
        return self.entropy / float(np.log(len(self.values)))

    @property
    def effective_rank(self) -> float:
        return float(np.exp(self.entropy))

    @property
    def participation_ratio(self) -> float:
        """(sum of eigenvalues)^2 / sum of their squares: as effective rank, and less moved by many small ones."""
        return float(1.0 / (self.values**2).sum())

    def coding_length(self, epsilon: float) -> float:
        """Nats a row to code the unit rows up to a squared error of epsilon^2."""
        return float(0.5 * np.log1p(len(self.values) / epsilon**2 * self.values).sum())


def isotropic_spectrum(num_rows: int, width: int, *, seed: int) -> UnitSpectrum:
    """The spectrum of as many Gaussian rows that fill all directions evenly: the ceiling that so few rows allow.

    Inner products of N Gaussian rows are a Wishart matrix, drawn by Bartlett's decomposition: D^3 whatever N is.
    """
    rng = np.random.default_rng(seed)
    if num_rows < width:  # the other side has the same eigenvalues
        values = np.zeros(width)
        values[width - num_rows :] = isotropic_spectrum(width, num_rows, seed=seed).values
        return UnitSpectrum(values=values, rows=num_rows)
    factor = np.tril(rng.standard_normal((width, width)), -1)
    factor[np.diag_indices(width)] = np.sqrt(rng.chisquare(num_rows - np.arange(width)))
    values = np.clip(scipy.linalg.eigvalsh(factor @ factor.T), 0.0, None)
    return UnitSpectrum(values=values / values.sum(), rows=num_rows)


def diff_erank(*, trained: UnitSpectrum, untrained: UnitSpectrum) -> float:
    """Effective rank that training took away: untrained minus trained, on the same tokens."""
    return untrained.effective_rank - trained.effective_rank


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenGains:
    """What each row of a sequence adds to those before it."""

    information: Feature64
    """Nats: 1/2 log(1 + r (Z^T Z + penalty I)^-1 r)."""
    unexplained: Feature64
    """What the best ridge regression on the rows before leaves (residual and penalty), of |r|^2; 1 for the first."""


def token_gains(rows: Rows64, penalty: float, context: ContextRows | None = None) -> TokenGains:
    """Gain of every row [N] given the rows before it, with prior variance 1/penalty in each direction.

    With `context` [N or more, D], row t is held against the first t rows of that instead: the control, what a context
    of other text tells. One Cholesky factor L of the context's inner products answers all of it: r^T (I + Z^T Z /
    penalty)^-1 r = |r|^2 - |L^-1 Z r|^2, whose sum over the first t entries belongs to the first t rows.

    Raises:
        NotEnoughData: A row is not finite.
    """
    before = rows if context is None else context[: len(rows)]
    if not (np.isfinite(rows).all() and np.isfinite(before).all()):
        raise NotEnoughData("Some rows are not finite, so they have no gain; leave such rows out.")
    factor = np.linalg.cholesky(before @ before.T + penalty * np.eye(len(before)))
    explained = np.cumsum(scipy.linalg.solve_triangular(factor, before @ rows.T, lower=True) ** 2, axis=0)
    total = np.einsum("nd,nd->n", rows, rows)
    left = total - np.append(0.0, np.diagonal(explained, offset=1))
    unexplained = np.divide(left, total, out=np.zeros_like(left), where=total > 0)
    return TokenGains(information=0.5 * np.log1p(np.maximum(left, 0.0) / penalty), unexplained=unexplained)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SelectedRows:
    """Rows of a context in the order in which the Lasso takes them, and what is left of the target after each."""

    order: Indices
    unexplained: Feature64


def select_context(context: Rows64, target: Feature64, num_rows: int) -> SelectedRows:
    """Which few rows of `context` [N, D] make up `target` [D]: the first `num_rows` along the Lasso path (LARS).

    Where ridge spreads its weights over all tokens, the Lasso names a few. `unexplained` is the residual of a least
    squares fit on the rows taken so far, as a share of |target|^2.
    """
    _, taken, _ = lars_path(context.T, target, method="lasso", max_iter=num_rows)
    order = np.array(taken[:num_rows], np.int64)
    left = []
    for count in range(1, len(order) + 1):
        rows = context[order[:count]].T
        fitted = rows @ np.linalg.lstsq(rows, target, rcond=None)[0]
        left.append(float(((target - fitted) ** 2).sum() / (target**2).sum()))
    return SelectedRows(order=order, unexplained=np.array(left))
