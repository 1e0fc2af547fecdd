"""How much of the ideal reader's belief a set of rows holds, up to a linear map: R^2 on documents not fitted.

Documents are dealt into groups; even groups fit the map that odd ones judge, and the other way round, and the two R^2
are averaged. Leaving out one group at a time gives the interval. Moments are kept per group and stretch of positions,
so R^2 over positions reads no row again.

    found = track(rows, targets, groups, stretches, num_groups=16, num_stretches=4)
    found.total.value, found.total.low, found.stretches

What can go wrong: rows of far more features than documents fit their own noise; R^2 on the other half then falls below
0, which is the honest answer. Targets that do not vary within a stretch have no R^2 there (NaN).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.joint import Joint, JointMoments
from lrh_ray.analyses.linear_map import LinearMap, fit_linear, r_squared
from lrh_ray.errors import ConfigError

RIDGE = 1e-8
"""Penalty relative to the mean variance of a feature: nothing, but for features that are constant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """R^2 of all rows with its interval, and of every stretch of positions."""

    total: Estimate
    stretches: tuple[float, ...]


def track(
    rows: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    stretches: np.ndarray,
    *,
    num_groups: int,
    num_stretches: int,
) -> Tracking:
    """R^2 of the best linear map from rows [N, D] to targets [N, Q], groups and stretches [N] counted from 0.

    Costs one product of the rows with themselves and 2 (num_groups + 1) eigendecompositions, O(D^3) each.

    Raises:
        ConfigError: Fewer than 4 groups: each half needs 2.
        NotEnoughData: A group without rows enough for a covariance.
    """
    if num_groups < 4:
        raise ConfigError(f"num_groups is {num_groups!r}; at least 4, so that each half can lose one.")
    shift = np.concatenate([rows[:1000].mean(axis=0), targets[:1000].mean(axis=0)]).astype(np.float64)
    cells = groups * num_stretches + stretches
    moments = JointMoments.of(rows, targets, shift=shift, groups=cells, num_groups=num_groups * num_stretches)
    grid = _Grid(moments=moments, num_groups=num_groups, num_stretches=num_stretches)
    everyone = np.ones(num_groups)
    left_out = [np.where(np.arange(num_groups) == group, 0.0, 1.0) for group in range(num_groups)]
    total = jackknife_interval(grid.score(everyone), [grid.score(weights) for weights in left_out])
    return Tracking(total=total, stretches=tuple(grid.by_stretch()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    """Moments of groups by stretches."""

    moments: JointMoments
    num_groups: int
    num_stretches: int

    def joint(self, weights: np.ndarray, stretch: int | None = None) -> Joint:
        """Rows of the groups, counted by their weights [G]; of one stretch, or of all."""
        inside = np.ones(self.num_stretches) if stretch is None else np.eye(self.num_stretches)[stretch]
        return self.moments.joint(np.outer(weights, inside).reshape(-1))

    def halves(self, weights: np.ndarray) -> Sequence[np.ndarray]:
        parity = np.arange(self.num_groups) % 2
        return [np.where(parity == half, weights, 0.0) for half in range(2)]

    def score(self, weights: np.ndarray) -> float:
        """Mean R^2 of the two halves, each judged by the map of the other."""
        first, second = self.halves(weights)
        return float(
            np.mean([r_squared(self._map(a), self.joint(b)).total for a, b in ((first, second), (second, first))])
        )

    def by_stretch(self) -> list[float]:
        """As `score` with all groups, judged on the rows of each stretch alone."""
        first, second = self.halves(np.ones(self.num_groups))
        maps = ((self._map(first), second), (self._map(second), first))
        return [
            float(np.mean([r_squared(fitted, self.joint(judge, stretch)).total for fitted, judge in maps]))
            for stretch in range(self.num_stretches)
        ]

    def _map(self, weights: np.ndarray) -> LinearMap:
        joint = self.joint(weights)
        return fit_linear(joint, RIDGE * float(np.trace(joint.xx)) / len(joint.xx))
