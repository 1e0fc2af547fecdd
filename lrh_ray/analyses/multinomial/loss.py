"""One pass over the rows: the part of loss and gradient that cannot be had from the moments.

The loss of a row, log sum_m e^t_m - t_class, is linear in its label, and the sum of x~ over the rows of each class is
in the moments. What is left is the log-partition sum_i log sum_m e^t_im, with gradient sum_i p_im x~_i. So a pass
reads no labels. The largest t of a row is taken off before any exponential, so nothing overflows.

Legend: N rows, D features and the column of ones, L penalties, M classes.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import Augmented, ClassCoefficients, ClassSquares, Members, PenaltyFloats, PenaltyInts
from lrh_ray.analyses.tiles import augment, select, tile_buffer, tile_slices
from lrh_ray.layouts import Feature64, Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoftmaxProposal:
    """Coefficients [D + 1, L, M] to be evaluated in one pass, for shifted rows, intercept last.

    `penalties` are the places of the L penalties in the problem: those that have converged are absent. `turn` counts
    proposals from 1.
    """

    turn: int
    population: int
    penalties: PenaltyInts
    coefficients: ClassCoefficients


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoftmaxState:
    """Mergeable sums of one pass, float64, at the proposal of `turn`.

    `partition` [L] is the log-partition, `gradient` [D + 1, L, M] its gradient (the last row holds the sums of p), and
    `squares` [L, M, M] the sum of p p^T: with the sums of p, the Hessian in the intercepts.
    """

    turn: int
    partition: PenaltyFloats
    gradient: ClassCoefficients
    squares: ClassSquares

    @classmethod
    def of(cls, rows: Rows, shift: Feature64, members: Members, proposal: SoftmaxProposal) -> "SoftmaxState":
        """Evaluate one block: rows [N, D] of any float type, members [N, P]. Rows outside the population cost nothing.

        Costs 4 D M L FLOP and M L exponentials a row.
        """
        _, L, M = proposal.coefficients.shape
        partition, squares = np.zeros(L), np.zeros((L, M, M))
        gradient = np.zeros(proposal.coefficients.shape)
        buffer = tile_buffer(len(rows), rows.shape[1])
        for tile in tile_slices(len(rows)):
            x = augment(select(rows[tile], members[tile, proposal.population]), shift, buffer)
            tile_partition, tile_gradient, tile_squares = _log_partition(x, proposal.coefficients)
            partition += tile_partition
            gradient += tile_gradient
            squares += tile_squares
        return cls(turn=proposal.turn, partition=partition, gradient=gradient, squares=squares)

    def merge(self, other: "SoftmaxState") -> "SoftmaxState":
        """Add the sums.

        Raises:
            ValueError: the states answer different proposals.
        """
        if self.turn != other.turn:
            raise ValueError(f"States of proposals {self.turn} and {other.turn} cannot be merged; finish a pass first.")
        return SoftmaxState(
            turn=self.turn,
            partition=self.partition + other.partition,
            gradient=self.gradient + other.gradient,
            squares=self.squares + other.squares,
        )


def _log_partition(x_ND: Augmented, w_DLM: ClassCoefficients) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over rows of log sum_m e^t_m [L], of its gradient [D, L, M] and of p p^T [L, M, M]."""
    D, L, M = w_DLM.shape
    p_NLM = (x_ND @ w_DLM.reshape(D, L * M)).reshape(len(x_ND), L, M)
    top_NL1 = p_NLM.max(axis=2, keepdims=True)
    np.exp(np.subtract(p_NLM, top_NL1, out=p_NLM), out=p_NLM)
    total_NL1 = p_NLM.sum(axis=2, keepdims=True)
    p_NLM /= total_NL1
    partition = (top_NL1 + np.log(total_NL1)).sum(axis=(0, 2))
    gradient = (x_ND.T @ p_NLM.reshape(len(x_ND), L * M)).reshape(D, L, M)
    return partition, gradient, p_NLM.transpose(1, 2, 0) @ p_NLM.transpose(1, 0, 2)
