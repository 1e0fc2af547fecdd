"""The loop of every solver here: propose points, be sent the sums of a pass, step, let finished columns go.

A problem of several convex columns says where to start, how a point becomes a proposal and how the sums of a pass
become an evaluation (`ColumnProblem`); `iterate` does the rest, whatever a column stands for: one probe of the binary
solver, all classes of one penalty of the multinomial one.

    outcome = yield from iterate(objective, tolerance=1e-9, max_passes=200, memory=20)
    outcome.point[:, outcome.certificate <= 1e-9]

What can go wrong: columns that are not below the tolerance after `max_passes` are left where they are, with their
certificate; the caller decides.
"""

from collections.abc import Generator
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from lrh_ray.analyses.layouts import AugmentedProbes, ProbeInts, ProbeMask
from lrh_ray.analyses.logistic.descent import Descent, Evaluation
from lrh_ray.errors import ConfigError

P = TypeVar("P")
S = TypeVar("S")
P_co = TypeVar("P_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


@runtime_checkable
class ColumnProblem(Protocol[P_co, S_contra]):
    """The active columns of a problem. `P_co` is what it proposes, `S_contra` the sums it is sent."""

    def start(self) -> Descent: ...

    def proposal(self, turn: int, probes: ProbeInts, point: AugmentedProbes) -> P_co: ...

    def evaluate(self, point: AugmentedProbes, state: S_contra) -> Evaluation: ...

    def of_probes(self, keep: ProbeMask) -> "ColumnProblem[P_co, S_contra]": ...


class Outcome:
    """Where every column was last seen; the one mutable thing of a solver, so that converged columns can leave it."""

    def __init__(self, start: Descent) -> None:
        self.point, self.gradient = np.zeros_like(start.point), np.zeros_like(start.point)
        self.loss, self.certificate = np.zeros_like(start.here.loss), np.full_like(start.here.loss, np.inf)
        self.evaluations = np.zeros(len(start.here.loss), dtype=np.int64)
        self.passes = 0

    def record(self, active: ProbeInts, descent: Descent) -> None:
        self.passes += 1
        self.evaluations[active] += 1
        self.point[:, active], self.gradient[:, active] = descent.point, descent.here.gradient
        self.loss[active], self.certificate[active] = descent.here.loss, descent.here.certificate


def require_settings(tolerance: float, max_passes: int, memory: int) -> None:
    """Refuse settings with which no solver can work, before its first pass.

    Raises:
        ConfigError: tolerance not above 0, or fewer than 1 pass or pair.
    """
    if not (tolerance > 0 and max_passes >= 1 and memory >= 1):
        raise ConfigError(
            f"The logistic solver was given tolerance={tolerance!r}, max_passes={max_passes!r}, memory={memory!r}; "
            "the tolerance must be above 0, the others at least 1."
        )


def iterate(problem: ColumnProblem[P, S], tolerance: float, max_passes: int, memory: int) -> Generator[P, S, Outcome]:
    """Step until each certificate is at most `tolerance`; one turn is one pass over the rows."""
    descent = problem.start()
    outcome, active = Outcome(descent), np.arange(len(descent.here.loss))
    while len(active) and outcome.passes < max_passes:
        trial = descent.trial
        state = yield problem.proposal(outcome.passes + 1, active, trial)
        descent = descent.after(problem.evaluate(trial, state), memory)
        outcome.record(active, descent)
        keep = descent.here.certificate > tolerance
        if not keep.all():
            problem, descent, active = problem.of_probes(keep), descent.of_probes(keep), active[keep]
    return outcome
