"""The probing study: every concept at every site of a store, with intervals, nulls and baselines.

One reduce pass gives the moments of a site, and with them ridge and LDA for all columns and penalties in closed form.
Passes over all sites at once solve the logistic probes to their certificate. One task per site judges the probes on
held-out documents. The answer is a `Result`; asking the same question again finds it on disk.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lrh_ray.analyses.lda import fit_lda
from lrh_ray.analyses.logistic import LogisticFit, LogisticProblem, in_lockstep, solve
from lrh_ray.analyses.moments import LabelledMoments, Moments, absolute_penalties
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.errors import NotConverged, NotEnoughData
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.probe_classes import fit_classes
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import ProbeDesign, make_design
from lrh_ray.studies.probe_judgement import Judge, SiteProbes
from lrh_ray.studies.probe_passes import CountPass, LossPass, MomentsPass, Rowset, TokenPass
from lrh_ray.studies.probe_result import make_result
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig

LABELS = "corpus"
SHRINKAGES = (0.01, 0.1, 0.5)
MAX_PASSES = 200


def probe(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Probe the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        NotEnoughData: No concept has enough documents.
        NotConverged: A logistic probe did not reach its certificate.
    """
    progress = progress or Silent()
    store = open_sealed(config.store_location)
    question = _question(store, config)
    if standing := standing_result(question, config.results_path):
        return standing
    started = time.monotonic()
    with connected(address):
        result = _answer(store, config, question, progress, started)
    return save_result(result, config.results_path)


def _question(store: Store, config: RunConfig) -> Result:
    """The result without its answer: what was asked, resolved, and of which inputs."""
    resolved: dict[str, Plain] = {
        **as_plain(config.probe),
        "sites": list(store.sites),
        "shrinkages": list(SHRINKAGES),
        "interval": "95 %, bootstrap over documents",
    }
    return Result(
        kind="probe",
        title=f"Linear probes of {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={"store": store.root, "labels": store.labels(LABELS).digest},
        measures=(),
    )


def _answer(store: Store, config: RunConfig, question: Result, progress: Progress, started: float) -> Result:
    design = make_design(store, store.labels(LABELS), config.probe)
    digest = digest_json({**question.inputs, "resolved": question.resolved, "root": str(absolute(store.location))})
    rowset = Rowset(location=absolute(store.location), labels=LABELS, design=design, digest=digest)
    if config.probe.control_tasks:
        rowset = _with_control_tasks(rowset, store.plan.num_blocks)
        design = rowset.design
    progress.begin(f"moments of {len(store.sites)} sites", len(store.sites), "sites")
    moments = {}
    for site in store.sites:
        blocks_pass = MomentsPass(rowset=rowset, site=site, shift=_shift(store, site))
        moments[site] = finished(site, reduce_blocks(range(store.plan.num_blocks), blocks_pass), design)
        progress.advance(1)
    fits = fit_logistic(rowset, store.plan.num_blocks, moments, config.probe, progress)
    probes = [_closed_forms(site, moments[site], fits[site], config.probe, design) for site in store.sites]
    if config.probe.mlp is not None:
        from lrh_ray.studies.mlp_probes import fit_mlp

        networks = fit_mlp(rowset, moments, config.probe.mlp, folder=config.folder / "training", progress=progress)
        probes = [replace(one, readouts={**one.readouts, "mlp": networks[one.site]}) for one in probes]
    progress.begin(f"judging {len(design.columns)} columns at {len(probes)} sites on held-out documents")
    tokens = reduce_blocks(range(store.plan.num_blocks), TokenPass(rowset=rowset))
    judgements = sample(probes, Judge(rowset=rowset, config=config.probe, tokens=tokens))
    seconds = round(time.monotonic() - started, 1)
    return make_result(question, store, design, probes, fits, judgements, seconds)


def _with_control_tasks(rowset: Rowset, num_blocks: int) -> Rowset:
    """The same rows with a control task for every column, near its rate over all rows."""
    counted = reduce_blocks(range(num_blocks), CountPass(rowset=replace(rowset, digest=f"{rowset.digest}-counted")))
    return replace(rowset, design=replace(rowset.design, rates=counted.rates))


def finished(site: str, state: LabelledMoments, design: ProbeDesign) -> Moments:
    """The moments of a site; what is wrong with them names the site and the concept.

    Raises:
        NotEnoughData: Fewer than 2 rows carry a concept, or rows are not finite.
    """
    try:
        return state.finalize(("all rows", *design.document_concepts))
    except NotEnoughData as error:
        raise NotEnoughData(f"Site {site!r}: {error}") from error


def _shift(store: Store, site: str) -> np.ndarray:
    """A fixed vector near the mean: of the first block, without sinks."""
    rows = store.block_rows(site, 0)[~store.sink_mask(0)]
    return np.asarray(rows.astype(np.float64).mean(axis=0))


def fit_logistic(
    rowset: Rowset, num_blocks: int, moments: Mapping[str, Moments], config: ProbeConfig, progress: Progress
) -> Mapping[str, LogisticFit]:
    """Solve all sites in lockstep: each turn is one reading of the store.

    Raises:
        NotConverged: A certificate was not reached in `MAX_PASSES` passes.
    """
    shifts = {site: of_site.shift for site, of_site in moments.items()}
    solvers = {
        site: solve(
            LogisticProblem(
                moments=of_site,
                penalties=absolute_penalties(of_site, config.penalties),
                names=rowset.design.names,
            ),
            tolerance=config.tolerance,
            max_passes=MAX_PASSES,
        )
        for site, of_site in moments.items()
    }
    turns = in_lockstep(solvers)
    progress.begin("logistic probes, passes over the store")
    try:
        proposals = next(turns)
        while True:
            loss_pass = LossPass(rowset=rowset, shifts=shifts, proposals=proposals)
            proposals = turns.send(reduce_blocks(range(num_blocks), loss_pass).sites)
    except StopIteration as finished:
        fits: Mapping[str, LogisticFit] = finished.value
    for site, fit in fits.items():
        if not fit.converged.all():
            worst = rowset.design.names[int(fit.readout.columns[fit.certificate.argmax()])]
            raise NotConverged(
                f"The logistic probe of {worst!r} at {site!r} stands at a gradient of {fit.certificate.max():.1e} "
                f"after {fit.passes} passes (asked: {config.tolerance:g}). Raise probe.tolerance or the least penalty."
            )
    return fits


def _closed_forms(
    site: str, moments: Moments, fit: LogisticFit, config: ProbeConfig, design: ProbeDesign
) -> SiteProbes:
    """Ridge and LDA from the moments, beside the logistic fit."""
    lda = [fit_lda(moments, shrinkage, names=design.names) for shrinkage in SHRINKAGES]
    readouts = {
        "logistic": fit.readout,
        "lda": _joined(lda),
        "ridge": fit_ridge(moments, absolute_penalties(moments, config.penalties)),
    }
    return SiteProbes(
        site=site, readouts=readouts, classes=fit_classes(moments, design, SHRINKAGES), rates=moments.rate
    )


def _joined(readouts: list[LinearReadout]) -> LinearReadout:
    return LinearReadout(
        weights=np.concatenate([readout.weights for readout in readouts], axis=1),
        intercepts=np.concatenate([readout.intercepts for readout in readouts]),
        columns=np.concatenate([readout.columns for readout in readouts]),
        regularisation=np.concatenate([readout.regularisation for readout in readouts]),
        threshold=readouts[0].threshold,
    )
