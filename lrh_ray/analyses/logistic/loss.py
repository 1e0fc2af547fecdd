"""One pass over the rows: the part of loss and gradient that cannot be had from the moments.

With t = w~ . x~ the loss of a row is

    log(1 + e^t) - y t  =  log(2 cosh(t / 2)) - (y - 1/2) t

Its labels stand in a linear term whose sum, sum_i (y_i - 1/2) x~_i, the moments hold. What is left is the log-partition
A(w~) = sum_i log(2 cosh(t_i / 2)), with gradient (1/2) sum_i tanh(t_i / 2) x~_i. So a pass reads no labels, shuffled
controls cost what any column costs, and one `tanh` per row and probe serves both sums:

    log(2 cosh a) = |a| + log 2 - log(1 + |tanh a|)

where the logarithm is taken once per `PRODUCT_ROWS` rows, of a product that stays within [1, 2^512]. Nothing
overflows for any t, and the absolute error of a row's loss is about 1e-16. A pass costs its two matrix products, 4 D
K FLOP a row, and little more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import Augmented, AugmentedProbes, Members, ProbeFloats, ProbeInts
from lrh_ray.analyses.tiles import augment, select, tile_buffer, tile_slices
from lrh_ray.layouts import Feature64, Rows

PRODUCT_ROWS = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Proposal:
    """Coefficients to be evaluated in one pass.

    `coefficients` are for shifted rows, intercept last. `probes` are their places in the problem: columns that have
    converged are absent, so passes become cheaper. `turn` counts proposals from 1.
    """

    turn: int
    probes: ProbeInts
    populations: ProbeInts
    coefficients: AugmentedProbes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LossState:
    """Mergeable sums of one pass, float64, at the proposal of `turn`.

    `partition` [K] is the log-partition, `gradient` [D + 1, K] its gradient, and `curvature` [K] the sum of
    p (1 - p), the size of its second derivative.
    """

    turn: int
    partition: ProbeFloats
    gradient: AugmentedProbes
    curvature: ProbeFloats

    @classmethod
    def of(cls, rows: Rows, shift: Feature64, members: Members, proposal: Proposal) -> "LossState":
        """Evaluate one block: rows [N, D] of any float type, members [N, P]. Rows outside a population cost nothing."""
        partition = np.zeros(len(proposal.probes))
        curvature = np.zeros(len(proposal.probes))
        gradient = np.zeros(proposal.coefficients.shape)
        buffer = tile_buffer(len(rows), rows.shape[1])
        groups = [(p, own, proposal.coefficients[:, own] / 2) for p, own in by_population(proposal.populations)]
        for tile in tile_slices(len(rows)):
            for p, own, half in groups:
                x = augment(select(rows[tile], members[tile, p]), shift, buffer)
                tile_partition, tile_gradient, tile_curvature = _log_partition(x, half)
                partition[own] += tile_partition
                gradient[:, own] += tile_gradient
                curvature[own] += tile_curvature
        return cls(turn=proposal.turn, partition=partition, gradient=gradient, curvature=curvature)

    def merge(self, other: "LossState") -> "LossState":
        """Add the sums.

        Raises:
            ValueError: the states answer different proposals.
        """
        if self.turn != other.turn:
            raise ValueError(f"States of proposals {self.turn} and {other.turn} cannot be merged; finish a pass first.")
        return LossState(
            turn=self.turn,
            partition=self.partition + other.partition,
            gradient=self.gradient + other.gradient,
            curvature=self.curvature + other.curvature,
        )


def by_population(populations: ProbeInts) -> Iterator[tuple[int, slice | np.ndarray]]:
    """(population, its probes) for each that occurs; a slice, hence no copies, where there is only one."""
    present = np.unique(populations).tolist()
    for p in present:
        yield p, slice(None) if len(present) == 1 else np.flatnonzero(populations == p)


def _log_partition(x_ND: Augmented, half_DK: AugmentedProbes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over rows of log(2 cosh a) [K], of its gradient [D, K] and of p (1 - p) [K], with a = x . w/2."""
    if len(x_ND) == 0:
        return np.zeros(half_DK.shape[1]), np.zeros(half_DK.shape), np.zeros(half_DK.shape[1])
    a_NK = x_ND @ half_DK
    tanh_NK = np.tanh(a_NK)
    gradient = x_ND.T @ tanh_NK
    gradient *= 0.5
    curvature = (len(x_ND) - np.einsum("nk,nk->k", tanh_NK, tanh_NK)) / 4
    total = np.abs(a_NK, out=a_NK).sum(axis=0)
    factors_NK = np.abs(tanh_NK, out=tanh_NK)
    factors_NK += 1
    for start in range(0, len(factors_NK), PRODUCT_ROWS):
        total -= np.log(np.multiply.reduce(factors_NK[start : start + PRODUCT_ROWS], axis=0))
    total += len(x_ND) * np.log(2)
    return total, gradient, curvature
