"""Intrinsic probing of a store: which few dimensions of a site carry a concept, and how much of it.

    lrh extract CONFIG
    lrh intrinsic CONFIG

Documents are dealt as for `lrh fit`: training rows fit a probe, validation rows rank the dimensions, held-out rows say
how many bits the first of them tell of the concept. Beside each number stand random subsets of its size, the same with
shuffled labels, and the most that any probe reads from any number of dimensions. One task per concept and site reads a
sample of whole documents; no more than that is held in memory.

What can go wrong: a store that is not sealed, a site or concept that it does not have, too few documents of a class.
"""

import time
from pathlib import Path

from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.errors import NotEnoughData, SiteError
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.intrinsic_config import IntrinsicConfig
from lrh_ray.studies.intrinsic_measurement import PENALTIES, Measurement
from lrh_ray.studies.intrinsic_records import Asked, Finding
from lrh_ray.studies.intrinsic_result import make_intrinsic_result
from lrh_ray.studies.intrinsic_rows import sampled
from lrh_ray.studies.intrinsic_summary import DISCOVERY_RATE
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import PARTS, VALIDATION, make_design
from lrh_ray.studies.probe_passes import Rowset
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig

LABELS = "corpus"


def intrinsic(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Measure the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        SiteError: A site that the store does not have.
        UnknownName: A concept that its labels do not have.
        NotEnoughData: Too few documents, or all of one class.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_sealed(config.store_location)
    question = _question(store, config)
    if standing := standing_result(question, config.results_path):
        return standing
    labels, split = store.labels(LABELS), _split(config.intrinsic)
    digest = digest_json({**question.inputs, "resolved": question.resolved, "root": str(absolute(store.location))})
    rowset = Rowset(
        location=absolute(store.location), labels=LABELS, design=make_design(store, labels, split), digest=digest
    )
    num_rows = {**dict.fromkeys(PARTS, config.intrinsic.max_rows), VALIDATION: config.intrinsic.ranking_rows}
    concepts, scarce = sampled(rowset, labels, store, num_rows=num_rows, least=split.min_documents)
    if not concepts:
        raise NotEnoughData(f"No concept can be probed: {'; '.join(f'{one.concept}: {one.reason}' for one in scarce)}.")
    measurement, sites = Measurement(concepts=concepts, config=config.intrinsic), _sites(config.intrinsic, store)
    asked = [Asked(site=site, concept=concept) for concept in concepts for site in sites]
    found: list[Finding] = []
    progress.begin(f"dimensions of {len(concepts)} concepts", len(asked), "concepts at sites")
    with connected(address) as cluster:
        wave = max(1, int(cluster.cpus))  # alike in work, so that they end together
        for first in range(0, len(asked), wave):
            found += sample(asked[first : first + wave], measurement)
            progress.advance(len(found) - first)
    seconds = round(time.monotonic() - started, 1)
    omitted = (*rowset.design.omitted, *scarce)
    return save_result(make_intrinsic_result(question, store, found, omitted, seconds), config.results_path)


def _question(store: Store, config: RunConfig) -> Result:
    resolved: dict[str, Plain] = {
        **as_plain(config.intrinsic),
        "sites": list(_sites(config.intrinsic, store)),
        "penalties": list(PENALTIES),
        "false_discovery_rate": DISCOVERY_RATE,
        "interval": "95 %, bootstrap over documents",
    }
    return Result(
        kind="intrinsic",
        title=f"Dimensions that carry concepts: {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={"store": store.root, "labels": store.labels(LABELS).digest},
        measures=(),
    )


def _split(config: IntrinsicConfig) -> ProbeConfig:
    """The settings by which documents are dealt and concepts chosen: those of the probing study."""
    return ProbeConfig(concepts=config.concepts, sinks=config.sinks, held_out=config.held_out, seed=config.seed)


def _sites(config: IntrinsicConfig, store: Store) -> tuple[str, ...]:
    for site in config.sites:
        if site not in store.sites:
            raise SiteError(f"intrinsic.sites names {site!r}; the store has {', '.join(store.sites)}.")
    return config.sites or tuple(store.sites)
