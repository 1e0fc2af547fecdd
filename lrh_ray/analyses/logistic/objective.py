"""F, its gradient and its curvature in whitened coordinates, from the sums of a pass."""

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeFloats, ProbeInts, ProbeMask
from lrh_ray.analyses.logistic.descent import Descent, Evaluation
from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.logistic.whitening import Whitening

LEAST_CURVATURE = 1e-12
"""Floor of the mean of p (1 - p), relative to its value at w = 0: keeps a perfectly separated column finite."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objective:
    """The problem of the active probes. `linear` is the labels' share of the gradient, known from the moments.

    `penalty` is the penalty's share of the Hessian at w = 0 in whitened coordinates, where that Hessian is the
    identity; the last row, the intercept's, is 0.
    """

    whitening: Whitening
    linear: AugmentedProbes
    penalty: AugmentedProbes
    count: ProbeFloats
    rate: ProbeFloats

    @classmethod
    def of(cls, problem: LogisticProblem) -> "Objective":
        moments, rate, whitening = problem.moments, problem.rate, Whitening.of(problem)
        target = rate * moments.positive_offset[:, problem.columns] - moments.offset[problem.populations].T / 2
        penalty = problem.probe_penalties / whitening.root**2
        penalty[-1] = 0
        return cls(
            whitening=whitening,
            linear=whitening.gradient(np.vstack([target, rate - 0.5])),
            penalty=penalty,
            count=moments.count[problem.populations].astype(np.float64),
            rate=rate,
        )

    @property
    def bernoulli(self) -> ProbeFloats:
        return np.asarray(self.rate * (1 - self.rate))

    @property
    def majoriser(self) -> AugmentedProbes:
        """Upper bound of the Hessian everywhere: p (1 - p) is at most 1/4 (Boehning 1992)."""
        return self._diagonal(0.25 / self.bernoulli)

    def at_base_rate(self) -> tuple[AugmentedProbes, Evaluation]:
        """The point w = 0 with the intercept at the base rate, where everything is known without a pass."""
        point = np.zeros_like(self.linear)
        point[-1] = self.whitening.root[-1] * np.log(self.rate / (1 - self.rate))
        mean = np.vstack([self.whitening.moments.offset[self.whitening.populations].T, np.ones(len(self.rate))])
        gradient = self.whitening.gradient((self.rate - 0.5) * mean) - self.linear
        loss = np.asarray(entr(self.rate) + entr(1 - self.rate))
        return point, Evaluation(loss=loss, gradient=gradient, diagonal=np.ones_like(point))

    def start(self) -> Descent:
        return Descent.start(*self.at_base_rate(), self.majoriser)

    def proposal(self, turn: int, probes: ProbeInts, point: AugmentedProbes) -> Proposal:
        coefficients = self.whitening.coefficients(point, self.whitening.moments.offset)
        return Proposal(turn=turn, probes=probes, populations=self.whitening.populations, coefficients=coefficients)

    def evaluate(self, point: AugmentedProbes, state: LossState) -> Evaluation:
        ridge = self.penalty * point
        gradient = self.whitening.gradient(state.gradient / self.count) - self.linear + ridge
        share = state.curvature / self.count / self.bernoulli
        return Evaluation(
            loss=state.partition / self.count + (point * (ridge / 2 - self.linear)).sum(axis=0),
            gradient=gradient,
            diagonal=self._diagonal(np.maximum(share, LEAST_CURVATURE)),
        )

    def of_probes(self, keep: ProbeMask) -> "Objective":
        return Objective(
            whitening=self.whitening.of_probes(keep),
            linear=self.linear[:, keep],
            penalty=self.penalty[:, keep],
            count=self.count[keep],
            rate=self.rate[keep],
        )

    def _diagonal(self, share: ProbeFloats) -> AugmentedProbes:
        """Hessian if p (1 - p) were one number for all rows, `share` times its value at w = 0."""
        return np.asarray(share * (1 - self.penalty) + self.penalty)
