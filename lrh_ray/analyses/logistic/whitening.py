"""Coordinates in which every probe's problem looks alike.

At w = 0 all rows have p_i = rate, so the Hessian of F there is exactly rate (1 - rate) C + penalty I in the weights
and rate (1 - rate) in the intercept at the population's mean. In the eigenbasis V of C it is diagonal, h. The solver
works in

    v = sqrt(h) * [V^T w,  b + w . mean]

where that Hessian is the identity: features with variances of 1e-3 and 1e6 weigh alike, the first step is Newton's, and
wherever p (1 - p) differs little between rows the Hessian stays diagonal. V is shared by all columns and penalties of
a population.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeFloats, ProbeInts
from lrh_ray.analyses.logistic.loss import by_population
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.moments import Moments


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Whitening:
    """`root` is sqrt(h) [D + 1, K]; the other maps go between whitened, shifted and raw coordinates."""

    moments: Moments
    populations: ProbeInts
    root: AugmentedProbes

    @classmethod
    def of(cls, problem: LogisticProblem) -> "Whitening":
        variances = np.stack([spectrum.values for spectrum in problem.moments.spectra])[problem.populations].T
        bernoulli = problem.rate * (1 - problem.rate)
        curvature = np.vstack([bernoulli * variances + problem.probe_penalties, bernoulli])
        return cls(moments=problem.moments, populations=problem.populations, root=np.sqrt(curvature))

    @property
    def condition(self) -> ProbeFloats:
        """Largest over smallest curvature of the weights at w = 0 [K]: how ill-conditioned the raw problem is."""
        weights = self.root[:-1] ** 2
        return np.asarray(weights.max(axis=0) / weights.min(axis=0))

    def of_probes(self, keep: np.ndarray) -> "Whitening":
        return Whitening(moments=self.moments, populations=self.populations[keep], root=self.root[:, keep])

    def coefficients(self, point: AugmentedProbes, origin: np.ndarray) -> AugmentedProbes:
        """Whitened point to weights and intercept; `origin` [P, D] is the population mean in the rows' coordinates."""
        scaled = point / self.root
        result: AugmentedProbes = scaled.copy()
        for p, own in by_population(self.populations):
            result[:-1, own] = self.moments.spectra[p].vectors @ scaled[:-1, own]
            result[-1, own] -= origin[p] @ result[:-1, own]
        return result

    def gradient(self, shifted: AugmentedProbes) -> AugmentedProbes:
        """Gradient in shifted coefficients to gradient in the whitened point (the transpose of `coefficients`)."""
        result = shifted.copy()
        for p, own in by_population(self.populations):
            centred = shifted[:-1, own] - np.outer(self.moments.offset[p], shifted[-1, own])
            result[:-1, own] = self.moments.spectra[p].vectors.T @ centred
        return np.asarray(result / self.root)

    def raw_gradient(self, whitened: AugmentedProbes) -> AugmentedProbes:
        """Gradient in the whitened point to gradient in weights and intercept of the rows as they are."""
        scaled = whitened * self.root
        result: AugmentedProbes = scaled.copy()
        for p, own in by_population(self.populations):
            centred = self.moments.spectra[p].vectors @ scaled[:-1, own]
            result[:-1, own] = centred + np.outer(self.moments.mean[p], scaled[-1, own])
        return result
