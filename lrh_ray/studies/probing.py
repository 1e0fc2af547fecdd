"""The probing study: every concept at every site of a store, with intervals, nulls and baselines.

One reduce pass gives the moments of a site, and with them ridge and LDA for all columns and penalties in closed form.
Passes over all sites at once solve the logistic probes to their certificate. One task per site judges the probes on
held-out documents. The answer is a `Result`; asking the same question again finds it on disk.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lrh_ray.analyses.lda import fit_lda
from lrh_ray.analyses.moments import LabelledMoments, Moments, absolute_penalties
from lrh_ray.analyses.readout import joined
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.errors import NotEnoughData
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.passes import Ledger
from lrh_ray.studies.probe_classes import fit_classes
from lrh_ray.studies.probe_code import send_labels
from lrh_ray.studies.probe_config import SHRINKAGES, ProbeConfig
from lrh_ray.studies.probe_costs import JUDGEMENT, MOMENTS, planned_passes
from lrh_ray.studies.probe_design import ProbeDesign, make_design
from lrh_ray.studies.probe_judgement import Judge, SiteProbes
from lrh_ray.studies.probe_measures import ProbeAnswer
from lrh_ray.studies.probe_passes import CountPass, MomentsPass, Rowset, TokenPass
from lrh_ray.studies.probe_result import make_result
from lrh_ray.studies.probe_solvers import SiteFits, fit_logistic
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.twins import standing_twin

LABELS = "corpus"


def probe(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Probe the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        NotEnoughData: No concept has enough documents.
        NotConverged: A logistic probe did not reach its certificate.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_sealed(config.store_location)
    twin = standing_twin(config, store)
    question = _question(store, twin, config)
    if standing := standing_result(question, config.results_path):
        return standing
    with connected(address) as cluster:
        rowset = _rowset(store, config, question)
        ledger = Ledger(planned_passes(store, rowset.design, config.probe, models=1 if twin is None else 2))
        ledger.require_memory(store.plan.num_blocks, cluster.cpus, "probe fewer concepts at once (probe.concepts)")
        trained = _answer(rowset, config, config.probe, ledger, progress)
        untrained = None
        if twin is not None:
            progress.say("the untrained twin, on the same tokens")
            beside = replace(rowset, location=absolute(twin.location), labelled=rowset.location)
            untrained = _answer(beside, config, replace(config.probe, mlp=None, codelength=False), ledger, progress)
        seconds = round(time.monotonic() - started, 1)
        result = make_result(question, store, rowset.design, trained, untrained, ledger, seconds)
    return save_result(result, config.results_path)


def _question(store: Store, twin: Store | None, config: RunConfig) -> Result:
    """The result without its answer: what was asked, resolved, and of which inputs."""
    resolved: dict[str, Plain] = {
        **as_plain(config.probe),
        "sites": list(store.sites),
        "shrinkages": list(SHRINKAGES),
        "interval": "95 %, bootstrap over documents",
    }
    inputs = {"store": store.root, "labels": store.labels(LABELS).digest}
    return Result(
        kind="probe",
        title=f"Linear probes of {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs=inputs if twin is None else {**inputs, "untrained": twin.root},
        measures=(),
    )


def _rowset(store: Store, config: RunConfig, question: Result) -> Rowset:
    """The rows of the study with their labels; on request with control tasks."""
    design = make_design(store, store.labels(LABELS), config.probe)
    digest = digest_json({**question.inputs, "resolved": question.resolved, "root": str(absolute(store.location))})
    rowset = Rowset(location=absolute(store.location), labels=LABELS, design=design, digest=digest)
    return _with_control_tasks(rowset, store.plan.num_blocks) if config.probe.control_tasks else rowset


def _answer(rowset: Rowset, run: RunConfig, config: ProbeConfig, ledger: Ledger, progress: Progress) -> ProbeAnswer:
    """Fit and judge every probe on the rows of one model."""
    store, design = rowset.store, rowset.design
    blocks = range(store.plan.num_blocks)
    progress.begin(f"moments of {len(store.sites)} sites", len(store.sites), "sites")
    moments = {}
    for site in store.sites:
        state = ledger.reduce(MOMENTS, blocks, MomentsPass(rowset=rowset, site=site, shift=_shift(rowset, site)))
        moments[site] = finished(site, state, design)
        progress.advance(1)
    fits = fit_logistic(rowset, moments, config, ledger, progress)
    probes = [_closed_forms(site, moments[site], fits[site], config, design) for site in store.sites]
    if config.mlp is not None:
        from lrh_ray.studies.mlp_probes import fit_mlp

        networks = fit_mlp(rowset, moments, config.mlp, folder=run.folder / "training", progress=progress)
        probes = [replace(one, readouts={**one.readouts, "mlp": networks[one.site]}) for one in probes]
    codes = {}
    if config.codelength:
        progress.begin(f"codelengths at {len(store.sites)} sites")
        shifts = {site: of_site.shift for site, of_site in moments.items()}
        codes = send_labels(rowset, shifts, SHRINKAGES, len(blocks), ledger)
    progress.begin(f"judging {len(design.columns)} columns at {len(probes)} sites on held-out documents")
    tokens = reduce_blocks(blocks, TokenPass(rowset=rowset))
    with ledger.taking(JUDGEMENT):
        judgements = sample(probes, Judge(rowset=rowset, config=config, tokens=tokens))
    binary = {site: of_site.binary for site, of_site in fits.items()}
    return ProbeAnswer(probes=probes, fits=binary, judgements=judgements, codes=codes)


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


def _shift(rowset: Rowset, site: str) -> np.ndarray:
    """A fixed vector near the mean: of the first block, without sinks where other rows are left."""
    rows, kept = rowset.store.block_rows(site, 0), rowset.block(0).members[:, 0]
    return np.asarray(rows[kept if kept.any() else slice(None)].astype(np.float64).mean(axis=0))


def _closed_forms(site: str, moments: Moments, fits: SiteFits, config: ProbeConfig, design: ProbeDesign) -> SiteProbes:
    """Ridge and LDA from the moments, beside the logistic fits."""
    lda = [fit_lda(moments, shrinkage, names=design.names) for shrinkage in SHRINKAGES]
    readouts = {
        "logistic": fits.binary.readout,
        "lda": joined(lda),
        "ridge": fit_ridge(moments, absolute_penalties(moments, config.penalties)),
    }
    classes = tuple(fit_classes(moments, design, SHRINKAGES, fits.classes))
    return SiteProbes(site=site, readouts=readouts, classes=classes, rates=moments.rate)
