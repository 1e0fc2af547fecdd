"""The multinomial solver as a generator: it proposes coefficients, is sent the sums of a pass, and returns the fit.

It never sees a row. Whoever owns the rows evaluates a proposal on every block (`SoftmaxState.of`), merges the states
and sends the sum back.

The certificate of a penalty is the largest |component| of its gradient along (direction of the classes) x (eigenvector
of the covariance), divided by the root of the mean curvature there. As in the binary solver it depends neither on the
units nor on the conditioning of the features, F exceeds its minimum by about (components) * certificate^2 / 2 nats
per row at most, and |W - W*| <= |raw gradient| / penalty.

What can go wrong: classes that are nearly separable with small penalties need hundreds of passes. Penalties that are
not `converged` after `max_passes` are returned as they are; the caller decides.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ClassCoefficients, PenaltyFloats, PenaltyInts, PenaltyMask
from lrh_ray.analyses.logistic.drive import Block, run_solver
from lrh_ray.analyses.logistic.iteration import iterate, require_settings
from lrh_ray.analyses.multinomial.loss import SoftmaxProposal, SoftmaxState
from lrh_ray.analyses.multinomial.objective import Objective
from lrh_ray.analyses.multinomial.problem import MultinomialProblem
from lrh_ray.analyses.readout import MulticlassReadout
from lrh_ray.analyses.state import merge_tree


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MultinomialFit:
    """One readout per penalty, with the evidence that it is the minimum; all arrays [L].

    `certificate` is the scaled gradient described above, `converged` whether it is at most the tolerance;
    `raw_gradient` the largest |gradient component| for weights and intercepts of the rows as they are; `condition` that
    of the weights' Hessian at W = 0, in raw coordinates; `loss` is F, nats per row; `evaluations` counts the passes a
    penalty took part in, `passes` those of the whole fit.
    """

    readouts: tuple[MulticlassReadout, ...]
    penalties: PenaltyFloats
    loss: PenaltyFloats
    certificate: PenaltyFloats
    raw_gradient: PenaltyFloats
    condition: PenaltyFloats
    evaluations: PenaltyInts
    passes: int
    converged: PenaltyMask


def solve(
    problem: MultinomialProblem, tolerance: float = 1e-9, max_passes: int = 200, memory: int = 20
) -> Generator[SoftmaxProposal, SoftmaxState, MultinomialFit]:
    """Fit every penalty until its certificate is at most `tolerance`.

    Between passes 4 D^2 M L FLOP and `memory` pairs of [D, M, L] arrays are needed.

    Raises:
        ConfigError: tolerance not above 0, or fewer than 1 pass or pair.
    """
    require_settings(tolerance, max_passes, memory)
    return _solve(problem, tolerance, max_passes, memory)


def _solve(
    problem: MultinomialProblem, tolerance: float, max_passes: int, memory: int
) -> Generator[SoftmaxProposal, SoftmaxState, MultinomialFit]:
    objective = Objective.of(problem)
    outcome = yield from iterate(objective, tolerance, max_passes, memory)
    return MultinomialFit(
        readouts=_readouts(problem, objective.coefficients(outcome.point, problem.moments.mean)),
        penalties=problem.penalties,
        loss=outcome.loss,
        certificate=outcome.certificate,
        raw_gradient=np.abs(objective.raw_gradient(outcome.gradient)).max(axis=(0, 2)),
        condition=objective.condition,
        evaluations=outcome.evaluations,
        passes=outcome.passes,
        converged=outcome.certificate <= tolerance,
    )


def _readouts(problem: MultinomialProblem, coefficients: ClassCoefficients) -> tuple[MulticlassReadout, ...]:
    return tuple(
        MulticlassReadout(
            weights=coefficients[:-1, penalty], intercepts=coefficients[-1, penalty], columns=problem.columns
        )
        for penalty in range(coefficients.shape[1])
    )


def run_in_memory(
    problem: MultinomialProblem, blocks: Sequence[Block], tolerance: float = 1e-9, max_passes: int = 200
) -> MultinomialFit:
    """Fit from blocks of (rows [N, D], members [N, P]) in memory, the same blocks the moments were made of."""
    shift = problem.moments.shift

    def one_pass(proposal: SoftmaxProposal) -> SoftmaxState:
        return merge_tree(SoftmaxState.of(rows, shift, members, proposal) for rows, members in blocks)

    return run_solver(solve(problem, tolerance, max_passes), one_pass)
