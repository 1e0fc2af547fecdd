"""L-BFGS with step control for many convex columns at once, each at its own pace.

Every pass evaluates one trial point per column. A column whose trial is good takes it and proposes its next
quasi-Newton step; a column whose trial is bad keeps its place and proposes a shorter one in the same pass, so no column
waits for another. After `MAX_SHORTER` bad trials a column takes the majoriser step: log(2 cosh(t / 2)) has second
derivative at most 1/4, so F lies below a known quadratic, and the step to its minimum descends without a search.

Acceptance is Armijo's rule, or, where differences of F drown in rounding (F is known to 1e-16, so its decrease says
nothing once the gradient is below 1e-8), its derivative form (Hager & Zhang 2005): the slope at the trial must not
exceed (1 - 2 c) times the size of the slope at the start. The gradient of the trial comes with the same pass.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeFloats, ProbeInts, ProbeMask
from lrh_ray.analyses.ratio import ratio

ARMIJO = 1e-4
FLAT = 1e-10
"""Relative change of F below which the derivative form of Armijo's rule is trusted."""

MAX_SHORTER = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """F at one point per column: its value, gradient and an estimate of its Hessian's diagonal, all above 0."""

    loss: ProbeFloats
    gradient: AugmentedProbes
    diagonal: AugmentedProbes

    @property
    def certificate(self) -> ProbeFloats:
        """Largest |gradient component| in units of the root of the curvature [K]."""
        return np.asarray((np.abs(self.gradient) / np.sqrt(self.diagonal)).max(axis=0))

    def replaced(self, mask: ProbeMask, other: "Evaluation") -> "Evaluation":
        """The other evaluation where `mask`, this one elsewhere."""
        return Evaluation(
            loss=np.where(mask, other.loss, self.loss),
            gradient=np.where(mask, other.gradient, self.gradient),
            diagonal=np.where(mask, other.diagonal, self.diagonal),
        )

    def of_probes(self, keep: ProbeMask) -> "Evaluation":
        return Evaluation(loss=self.loss[keep], gradient=self.gradient[:, keep], diagonal=self.diagonal[:, keep])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """An accepted step and the change of gradient along it; `inverse` is 1 / (step . change), 0 where unusable."""

    step: AugmentedProbes
    change: AugmentedProbes
    inverse: ProbeFloats

    @classmethod
    def of(cls, step: AugmentedProbes, change: AugmentedProbes) -> "Pair":
        curvature = (step * change).sum(axis=0)
        rounding = 1e-14 * np.sqrt((step**2).sum(axis=0) * (change**2).sum(axis=0))
        inverse = ratio(1.0, np.where(curvature > rounding, curvature, 0.0), otherwise=0.0)
        return cls(step=step, change=change, inverse=inverse)

    def of_probes(self, keep: ProbeMask) -> "Pair":
        return Pair(step=self.step[:, keep], change=self.change[:, keep], inverse=self.inverse[keep])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Descent:
    """Where each column is, and the trial it proposes: `point + length * direction`. One column per active probe.

    `majoriser` bounds the diagonal Hessian from above at every point; `shorter` counts bad trials in a row.
    """

    point: AugmentedProbes
    here: Evaluation
    direction: AugmentedProbes
    length: ProbeFloats
    shorter: ProbeInts
    majoriser: AugmentedProbes
    pairs: tuple[Pair, ...]

    @classmethod
    def start(cls, point: AugmentedProbes, here: Evaluation, majoriser: AugmentedProbes) -> "Descent":
        return cls(
            point=point,
            here=here,
            direction=-here.gradient / here.diagonal,
            length=np.ones(len(here.loss)),
            shorter=np.zeros(len(here.loss), dtype=np.int64),
            majoriser=majoriser,
            pairs=(),
        )

    @property
    def trial(self) -> AugmentedProbes:
        return np.asarray(self.point + self.length * self.direction)

    def after(self, there: Evaluation, memory: int) -> "Descent":
        """Where the columns go once their trials are evaluated; `memory` pairs are kept."""
        slope = (self.here.gradient * self.direction).sum(axis=0)
        trial_slope = (there.gradient * self.direction).sum(axis=0)
        accepted = (self.shorter > MAX_SHORTER) | self._is_descent(there.loss, slope, trial_slope)
        pair = Pair.of(
            accepted * self.length * self.direction, np.where(accepted, there.gradient - self.here.gradient, 0.0)
        )
        pairs, here = (*self.pairs, pair)[-memory:], self.here.replaced(accepted, there)
        shorter = np.where(accepted, 0, self.shorter + 1)
        exhausted = shorter > MAX_SHORTER
        direction = np.where(accepted, quasi_newton_direction(here, pairs), self.direction)
        return Descent(
            point=self.point + pair.step,
            here=here,
            direction=np.where(exhausted, -here.gradient / self.majoriser, direction),
            length=np.where(accepted | exhausted, 1.0, self.length * _shrink(slope, trial_slope)),
            shorter=shorter,
            majoriser=self.majoriser,
            pairs=pairs,
        )

    def of_probes(self, keep: ProbeMask) -> "Descent":
        """The columns that go on; the others leave every later product."""
        return Descent(
            point=self.point[:, keep],
            here=self.here.of_probes(keep),
            direction=self.direction[:, keep],
            length=self.length[keep],
            shorter=self.shorter[keep],
            majoriser=self.majoriser[:, keep],
            pairs=tuple(pair.of_probes(keep) for pair in self.pairs),
        )

    def _is_descent(self, trial_loss: ProbeFloats, slope: ProbeFloats, trial_slope: ProbeFloats) -> ProbeMask:
        armijo = trial_loss <= self.here.loss + ARMIJO * self.length * slope
        flat = np.abs(trial_loss - self.here.loss) <= FLAT * np.abs(self.here.loss)
        return np.asarray(armijo | (flat & (trial_slope <= (1 - 2 * ARMIJO) * np.abs(slope))))


def quasi_newton_direction(here: Evaluation, pairs: tuple[Pair, ...]) -> AugmentedProbes:
    """-H gradient by the two-loop recursion (Nocedal & Wright, algorithm 7.4), all columns at once.

    It starts from the inverse of the diagonal *here*, rescaled so that the newest pair has its true curvature along it.
    As a column learns to separate its classes, p (1 - p) vanishes on most rows; without following it, columns with
    small penalties need several times as many passes.
    """
    q, projections = -here.gradient, []
    for pair in reversed(pairs):
        projection = pair.inverse * (pair.step * q).sum(axis=0)
        projections.append(projection)
        q -= projection * pair.change
    q *= _scale(pairs[-1], here) / here.diagonal
    for pair, projection in zip(pairs, reversed(projections), strict=True):
        q += (projection - pair.inverse * (pair.change * q).sum(axis=0)) * pair.step
    return q


def _scale(newest: Pair, here: Evaluation) -> ProbeFloats:
    """Step . change over change . diagonal^-1 change [K]; 1 where the newest pair says nothing."""
    estimated = (newest.change**2 / here.diagonal).sum(axis=0)
    return ratio(1.0, newest.inverse * estimated, otherwise=1.0)


def _shrink(slope: ProbeFloats, trial_slope: ProbeFloats) -> ProbeFloats:
    """Factor for a rejected step: where the slope's secant crosses zero, kept within [0.1, 0.5]."""
    return np.asarray(np.clip(ratio(-slope, trial_slope - slope, otherwise=0.5), 0.1, 0.5))
