"""The solver as a generator: it proposes coefficients, is sent the sums of a pass, and returns the fit.

It never sees a row. Whoever owns the rows evaluates a proposal on every block (`LossState.of`), merges the states
(`merge_tree`) and sends the sum back; several sites advance through one reading of the corpus this way (`in_lockstep`).

The certificate of a probe is the largest |component| of its gradient in the eigenbasis of its population's covariance,
each component divided by the root of the curvature there, mean of p (1 - p) times the variance plus the penalty. It
does not depend on the units or the conditioning of the features, and it says what is left: F exceeds its minimum by
about (components) * certificate^2 / 2 nats per row at most. The raw gradient is reported too; by strong convexity
|w - w*| <= |raw gradient| / penalty.

What can go wrong: nearly separable columns with small penalties have no curvature where their rows are, and need
hundreds of passes. Probes that are not `converged` after `max_passes` are returned as they are; the caller decides.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ProbeFloats, ProbeInts, ProbeMask
from lrh_ray.analyses.logistic.iteration import iterate, require_settings
from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.objective import Objective
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.readout import LinearReadout


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogisticFit:
    """Probes with the evidence that they are the minimum.

    `certificate` is the scaled gradient described above, `converged` whether it is at most the tolerance;
    `raw_gradient` the largest |gradient component| for weights and intercept of the rows as they are; `condition` that
    of the weights' Hessian at w = 0, in raw coordinates; `loss` is F, nats per row; `evaluations` counts the passes a
    probe took part in, `passes` those of the whole fit.
    """

    readout: LinearReadout
    loss: ProbeFloats
    certificate: ProbeFloats
    raw_gradient: ProbeFloats
    condition: ProbeFloats
    evaluations: ProbeInts
    passes: int
    converged: ProbeMask


def solve(
    problem: LogisticProblem, tolerance: float = 1e-9, max_passes: int = 200, memory: int = 20
) -> Generator[Proposal, LossState, LogisticFit]:
    """Fit all probes of a problem until each certificate is at most `tolerance`.

    Between passes 4 D^2 K FLOP and `memory` pairs of [D + 1, K] arrays are needed. The minimum is unique, so the answer
    depends neither on the order of rows nor, beyond the tolerance, on anything else here.

    Raises:
        ConfigError: tolerance not above 0, or fewer than 1 pass or pair.
    """
    require_settings(tolerance, max_passes, memory)
    return _solve(problem, tolerance, max_passes, memory)


def _solve(
    problem: LogisticProblem, tolerance: float, max_passes: int, memory: int
) -> Generator[Proposal, LossState, LogisticFit]:
    objective = Objective.of(problem)
    outcome = yield from iterate(objective, tolerance, max_passes, memory)
    coefficients = objective.whitening.coefficients(outcome.point, problem.moments.mean)
    return LogisticFit(
        readout=LinearReadout(
            weights=coefficients[:-1],
            intercepts=coefficients[-1],
            columns=problem.columns,
            regularisation=problem.probe_penalties,
            threshold=0.0,
        ),
        loss=outcome.loss,
        certificate=outcome.certificate,
        raw_gradient=np.abs(objective.whitening.raw_gradient(outcome.gradient)).max(axis=0),
        condition=objective.whitening.condition,
        evaluations=outcome.evaluations,
        passes=outcome.passes,
        converged=outcome.certificate <= tolerance,
    )
