"""Logistic probes of all sites at once: binary columns, and concepts of several classes as one model each.

Every solver proposes coefficients and is sent sums. All of them advance by the same readings of the store, so a concept
of several classes costs products and hardly a pass.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from lrh_ray.analyses.logistic import LogisticFit, LogisticProblem, LossState, Proposal, in_lockstep, solve
from lrh_ray.analyses.moments import Moments, absolute_penalties
from lrh_ray.analyses.multinomial import MultinomialFit, MultinomialProblem, SoftmaxProposal, SoftmaxState
from lrh_ray.analyses.multinomial import solve as solve_classes
from lrh_ray.errors import NotConverged
from lrh_ray.studies.passes import Ledger
from lrh_ray.studies.probe_classes import ClassColumns, class_places
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_costs import LOGISTIC, MAX_PASSES
from lrh_ray.studies.probe_passes import LossPass, Place, Rowset
from lrh_ray.studies.progress import Progress

Fit: TypeAlias = LogisticFit | MultinomialFit
Solver: TypeAlias = Generator[Proposal | SoftmaxProposal, LossState | SoftmaxState, Fit]
"""Either kind; who sends sums answers each proposal with a state of its kind."""


@dataclass(frozen=True, kw_only=True)
class SiteFits:
    """The binary probes of a site, and its models of several classes."""

    binary: LogisticFit
    classes: Mapping[ClassColumns, MultinomialFit]

    @classmethod
    def of(cls, site: str, fits: Mapping[Place, Fit]) -> "SiteFits":
        own = {place.classes: fit for place, fit in fits.items() if place.site == site}
        several = {classes: fit for classes, fit in own.items() if classes is not None}
        return cls(binary=cast(LogisticFit, own[None]), classes=cast(Mapping[ClassColumns, MultinomialFit], several))


def fit_logistic(
    rowset: Rowset, moments: Mapping[str, Moments], config: ProbeConfig, ledger: Ledger, progress: Progress
) -> Mapping[str, SiteFits]:
    """Solve all sites in lockstep: each turn is one reading of the store.

    Raises:
        NotConverged: A certificate was not reached in `MAX_PASSES` passes.
    """
    design, blocks = rowset.design, range(rowset.store.plan.num_blocks)
    places = tuple(class_places(design)) if config.multinomial else ()
    turns = in_lockstep(
        {
            Place(site=site, classes=classes): _solver(of_site, classes, design.names, config)
            for site, of_site in moments.items()
            for classes in (None, *places)
        }
    )
    shifts = {site: of_site.shift for site, of_site in moments.items()}
    progress.begin("logistic probes, passes over the store")
    try:
        proposals = next(turns)
        while True:
            loss_pass = LossPass(rowset=rowset, shifts=shifts, proposals=proposals)
            proposals = turns.send(ledger.reduce(LOGISTIC, blocks, loss_pass).states)
    except StopIteration as finished:
        fits: Mapping[Place, Fit] = finished.value
    for place, fit in fits.items():
        _require_certificate(place, fit, design.names, config.tolerance)
    return {site: SiteFits.of(site, fits) for site in moments}


def _solver(moments: Moments, classes: ClassColumns | None, names: tuple[str, ...], config: ProbeConfig) -> Solver:
    penalties = absolute_penalties(moments, config.penalties)
    if classes is None:
        binary = LogisticProblem(moments=moments, penalties=penalties, names=names)
        return cast(Solver, solve(binary, tolerance=config.tolerance, max_passes=MAX_PASSES))
    columns = np.array(classes.columns, dtype=np.int64)
    several = MultinomialProblem(moments=moments, columns=columns, penalties=penalties[columns[0]], name=str(classes))
    return cast(Solver, solve_classes(several, tolerance=config.tolerance, max_passes=MAX_PASSES))


def _require_certificate(place: Place, fit: Fit, names: Sequence[str], tolerance: float) -> None:
    if fit.converged.all():
        return
    worst = int(fit.certificate.argmax())
    what = names[int(fit.readout.columns[worst])] if isinstance(fit, LogisticFit) else str(place.classes)
    raise NotConverged(
        f"The logistic probe of {what!r} at {place.site!r} stands at a gradient of {fit.certificate.max():.1e} after "
        f"{fit.passes} passes (asked: {tolerance:g}). Raise probe.tolerance or the least penalty."
    )
