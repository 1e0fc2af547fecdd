"""L-BFGS with step control for many convex columns at once, each at its own pace.

Every pass evaluates one trial point per column. A column whose trial is good takes it and proposes its next
quasi-Newton step; a column whose trial is bad keeps its place and proposes a shorter one in the same pass, so no
column waits for another. After `MAX_SHORTER` bad trials a column takes the majoriser step: log(2 cosh) has second
derivative at most 1/4, so F lies below a known quadratic, and the step to its minimum descends without a search.

Acceptance is Armijo's rule, or, where differences of F drown in rounding (F is known to 1e-16, so its decrease says
nothing once the gradient is below 1e-8), its derivative form (Hager & Zhang 2005): the slope at the trial must not
exceed (1 - 2 c) times the size of the slope at the start. The gradient of the trial comes with the same pass.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeFloats, ProbeInts
from lrh_ray.analyses.ratio import ratio

ARMIJO = 1e-4
FLAT = 1e-10
"""Relative change of F below which the derivative form of Armijo's rule is trusted."""

MAX_SHORTER = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """An accepted step and the change of gradient along it; `inverse` is 1 / (step . change), 0 where unusable."""

    step: AugmentedProbes
    change: AugmentedProbes
    inverse: ProbeFloats

    def of_probes(self, keep: np.ndarray) -> "Pair":
        return Pair(step=self.step[:, keep], change=self.change[:, keep], inverse=self.inverse[keep])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Descent:
    """Where each column is, and the trial it proposes: `point + length * direction`. One column per active probe."""

    point: AugmentedProbes
    loss: ProbeFloats
    gradient: AugmentedProbes
    direction: AugmentedProbes
    length: ProbeFloats
    shorter: ProbeInts
    majoriser: AugmentedProbes
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def start(
        cls, point: AugmentedProbes, loss: ProbeFloats, gradient: AugmentedProbes, majoriser: AugmentedProbes
    ) -> "Descent":
        """At a known point; `majoriser` [D + 1, K] bounds the diagonal Hessian from above, in units of the metric."""
        K = len(loss)
        return cls(
            point=point,
            loss=loss,
            gradient=gradient,
            direction=-gradient,
            length=np.ones(K),
            shorter=np.zeros(K, dtype=np.int64),
            majoriser=majoriser,
        )

    @property
    def trial(self) -> AugmentedProbes:
        return np.asarray(self.point + self.length * self.direction)

    @property
    def certificate(self) -> ProbeFloats:
        """Largest |component| of the whitened gradient at `point` [K]."""
        return np.asarray(np.abs(self.gradient).max(axis=0))

    def after(self, loss: ProbeFloats, gradient: AugmentedProbes, memory: int) -> "Descent":
        """Where the columns go when their trials turn out to have this loss and gradient."""
        slope = (self.gradient * self.direction).sum(axis=0)
        trial_slope = (gradient * self.direction).sum(axis=0)
        accepted = (self.shorter > MAX_SHORTER) | self._is_descent(loss, slope, trial_slope)
        pair = _pair(accepted * self.length * self.direction, np.where(accepted, gradient - self.gradient, 0.0))
        pairs = (*self.pairs, pair)[-memory:]
        new_gradient = np.where(accepted, gradient, self.gradient)
        shorter = np.where(accepted, 0, self.shorter + 1)
        quasi_newton = accepted | (shorter <= MAX_SHORTER)
        direction = np.where(accepted, quasi_newton_direction(new_gradient, pairs), self.direction)
        direction = np.where(quasi_newton, direction, -new_gradient / self.majoriser)
        restart = accepted | ~quasi_newton
        return Descent(
            point=self.point + pair.step,
            loss=np.where(accepted, loss, self.loss),
            gradient=new_gradient,
            direction=direction,
            length=np.where(restart, 1.0, self.length * _shrink(slope, trial_slope)),
            shorter=shorter,
            majoriser=self.majoriser,
            pairs=pairs,
        )

    def of_probes(self, keep: np.ndarray) -> "Descent":
        """The columns that go on; the others leave every later product."""
        return Descent(
            point=self.point[:, keep],
            loss=self.loss[keep],
            gradient=self.gradient[:, keep],
            direction=self.direction[:, keep],
            length=self.length[keep],
            shorter=self.shorter[keep],
            majoriser=self.majoriser[:, keep],
            pairs=tuple(pair.of_probes(keep) for pair in self.pairs),
        )

    def _is_descent(self, loss: ProbeFloats, slope: ProbeFloats, trial_slope: ProbeFloats) -> np.ndarray:
        armijo = loss <= self.loss + ARMIJO * self.length * slope
        flat = np.abs(loss - self.loss) <= FLAT * np.abs(self.loss)
        return np.asarray(armijo | (flat & (trial_slope <= (1 - 2 * ARMIJO) * np.abs(slope))))


def quasi_newton_direction(gradient: AugmentedProbes, pairs: tuple[Pair, ...]) -> AugmentedProbes:
    """-H gradient by the two-loop recursion from H = I (Nocedal & Wright, algorithm 7.4), all columns at once.

    The first metric is not rescaled by the newest pair: it is the Hessian at w = 0, whose scale is already right.
    """
    q, projections = -gradient, []
    for pair in reversed(pairs):
        projection = pair.inverse * (pair.step * q).sum(axis=0)
        projections.append(projection)
        q -= projection * pair.change
    for pair, projection in zip(pairs, reversed(projections), strict=True):
        q += (projection - pair.inverse * (pair.change * q).sum(axis=0)) * pair.step
    return q


def _pair(step: AugmentedProbes, change: AugmentedProbes) -> Pair:
    curvature = (step * change).sum(axis=0)
    least = 1e-14 * np.sqrt((step**2).sum(axis=0) * (change**2).sum(axis=0))
    inverse = ratio(1.0, np.where(curvature > least, curvature, 0.0), otherwise=0.0)
    return Pair(step=step, change=change, inverse=inverse)


def _shrink(slope: ProbeFloats, trial_slope: ProbeFloats) -> ProbeFloats:
    """Factor for a rejected step: where the slope's secant crosses zero, kept within [0.1, 0.5]."""
    rise = trial_slope - slope
    return np.asarray(np.clip(ratio(-slope, rise, otherwise=0.5), 0.1, 0.5))
