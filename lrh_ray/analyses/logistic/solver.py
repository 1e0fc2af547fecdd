"""The solver as a generator: it proposes coefficients, is sent the sums of a pass, and returns the fit.

It never sees a row. Whoever owns the rows evaluates a proposal on every block (`LossState.of`), merges the states
(`merge_tree`) and sends the sum back; several sites advance through one reading of the corpus this way (`in_lockstep`).

The certificate of a probe is the largest |component| of its gradient in whitened coordinates (`whitening`), where the
curvature at w = 0 is 1 in every direction; it does not depend on the units or the conditioning of the features. It
bounds what is left: F exceeds its minimum by about D * certificate^2 / 2 nats per row at most. The raw gradient is
reported too; by strong convexity |w - w*| <= |raw gradient| / penalty.

What can go wrong: probes that are not `converged` after `max_passes` are returned as they are; the caller decides.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeFloats, ProbeInts, ProbeMask
from lrh_ray.analyses.logistic.descent import Descent
from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.logistic.whitening import Whitening
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogisticFit:
    """Probes with the evidence that they are the minimum.

    `certificate`: largest |gradient component| in whitened coordinates; `raw_gradient`: the same for weights and
    intercept of the rows as they are; `condition`: of the Hessian at w = 0, of the weights in raw coordinates;
    `evaluations`: passes in which the probe took part; `passes`: of the whole fit; `loss`: F, nats per row.
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
    problem: LogisticProblem, tolerance: float = 1e-9, max_passes: int = 100, memory: int = 10
) -> Generator[Proposal, LossState, LogisticFit]:
    """Fit all probes of a problem until each certificate is at most `tolerance`.

    Between passes 4 D^2 K FLOP and `memory` pairs of [D + 1, K] arrays are needed. The minimum is unique, so the answer
    depends neither on the order of rows nor, beyond the tolerance, on anything else here.

    Raises:
        ConfigError: tolerance not above 0, or fewer than 1 pass or pair.
    """
    if not (tolerance > 0 and max_passes >= 1 and memory >= 1):
        raise ConfigError(
            f"The logistic solver was given tolerance={tolerance!r}, max_passes={max_passes!r}, memory={memory!r}; "
            "the tolerance must be above 0, the others at least 1."
        )
    return _iterate(problem, tolerance, max_passes, memory)


def _iterate(
    problem: LogisticProblem, tolerance: float, max_passes: int, memory: int
) -> Generator[Proposal, LossState, LogisticFit]:
    everything = _Objective.of(problem)
    objective, active = everything, np.arange(len(problem.columns))
    descent = _start(objective)
    point, loss, gradient = descent.point.copy(), descent.loss.copy(), descent.gradient.copy()
    evaluations = np.zeros(len(active), dtype=np.int64)
    passes = 0
    while len(active) and passes < max_passes:
        passes += 1
        state = yield objective.proposal(passes, active, descent.trial)
        descent = descent.after(*objective.evaluate(descent.trial, state), memory=memory)
        evaluations[active] += 1
        point[:, active], loss[active], gradient[:, active] = descent.point, descent.loss, descent.gradient
        keep = descent.certificate > tolerance
        if not keep.all():
            objective, descent, active = objective.of_probes(keep), descent.of_probes(keep), active[keep]
    return _fit(problem, everything.whitening, point, loss, gradient, evaluations, passes, tolerance)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Objective:
    """F and its gradient in whitened coordinates, from the sums of a pass. `linear` is the labels' share."""

    whitening: Whitening
    linear: AugmentedProbes
    penalties: ProbeFloats
    count: ProbeFloats
    rate: ProbeFloats

    @classmethod
    def of(cls, problem: LogisticProblem) -> "_Objective":
        moments, columns = problem.moments, problem.columns
        rate = problem.rate
        target = rate * moments.positive_offset[:, columns] - moments.offset[problem.populations].T / 2
        whitening = Whitening.of(problem)
        return cls(
            whitening=whitening,
            linear=whitening.gradient(np.vstack([target, rate - 0.5])),
            penalties=problem.probe_penalties,
            count=moments.count[problem.populations].astype(np.float64),
            rate=rate,
        )

    def of_probes(self, keep: np.ndarray) -> "_Objective":
        return _Objective(
            whitening=self.whitening.of_probes(keep),
            linear=self.linear[:, keep],
            penalties=self.penalties[keep],
            count=self.count[keep],
            rate=self.rate[keep],
        )

    def proposal(self, turn: int, probes: ProbeInts, point: AugmentedProbes) -> Proposal:
        coefficients = self.whitening.coefficients(point, self.whitening.moments.offset)
        return Proposal(turn=turn, probes=probes, populations=self.whitening.populations, coefficients=coefficients)

    def evaluate(self, point: AugmentedProbes, state: LossState) -> tuple[ProbeFloats, AugmentedProbes]:
        ridge = self.penalties / self.whitening.root**2 * point
        ridge[-1] = 0  # the intercept is free
        loss = state.partition / self.count + (point * (ridge / 2 - self.linear)).sum(axis=0)
        return loss, self.whitening.gradient(state.gradient / self.count) - self.linear + ridge

    @property
    def majoriser(self) -> AugmentedProbes:
        """Upper bound of the Hessian in whitened coordinates: curvature 1/4 in place of rate (1 - rate) (Boehning)."""
        bernoulli = self.rate * (1 - self.rate)
        curvature = self.whitening.root**2
        penalty = np.vstack([np.tile(self.penalties, (len(curvature) - 1, 1)), np.zeros((1, len(self.penalties)))])
        return np.asarray(((curvature - penalty) * (0.25 / bernoulli) + penalty) / curvature)


def _start(objective: _Objective) -> Descent:
    """No weights, with the intercept at the base rate, where loss and gradient are known without a pass."""
    rate = objective.rate
    point = np.zeros_like(objective.linear)
    point[-1] = objective.whitening.root[-1] * np.log(rate / (1 - rate))
    mean = np.vstack([objective.whitening.moments.offset[objective.whitening.populations].T, np.ones(len(rate))])
    return Descent.start(
        point=point,
        loss=entr(rate) + entr(1 - rate),
        gradient=objective.whitening.gradient((rate - 0.5) * mean) - objective.linear,
        majoriser=objective.majoriser,
    )


def _fit(
    problem: LogisticProblem,
    whitening: Whitening,
    point: AugmentedProbes,
    loss: ProbeFloats,
    gradient: AugmentedProbes,
    evaluations: ProbeInts,
    passes: int,
    tolerance: float,
) -> LogisticFit:
    coefficients = whitening.coefficients(point, problem.moments.mean)
    certificate = np.abs(gradient).max(axis=0)
    return LogisticFit(
        readout=LinearReadout(
            weights=coefficients[:-1],
            intercepts=coefficients[-1],
            columns=problem.columns,
            regularisation=problem.probe_penalties,
            threshold=0.0,
        ),
        loss=loss,
        certificate=certificate,
        raw_gradient=np.abs(whitening.raw_gradient(gradient)).max(axis=0),
        condition=whitening.condition,
        evaluations=evaluations,
        passes=passes,
        converged=certificate <= tolerance,
    )
