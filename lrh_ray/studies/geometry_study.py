"""Geometry of a store: how many directions each site uses, what training took away, and what each token adds.

    lrh extract CONFIG          # any store
    lrh extract CONFIG --twin   # optional: the untrained model on the same tokens, for Diff-eRank
    lrh geometry CONFIG

Two passes over a site: its mean, then the inner products of the directions of its rows, kept apart by groups of
documents. Every interval is a jackknife over these groups, which takes no further pass. Isotropic rows of the same
number and width stand beside the ranks as what the largest would be, and contexts of other documents beside the gains.

With `geometry.family`, the run is repeated with each model of a family, and the entropy of its last site is set against
its size.

What can go wrong: a store that is not sealed, a site or concept that it does not have, fewer documents than groups.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lrh_ray.analyses.geometry import UnitGrams, UnitSpectrum
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, UnknownName
from lrh_ray.models.meta_facts import describe_model
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.geometry_config import GeometryConfig
from lrh_ray.studies.geometry_passes import GainTask, GeometryRows, GramPass, SumPass
from lrh_ray.studies.geometry_records import FamilyMember, SiteGains, SiteGeometry, SiteScale, Spectra
from lrh_ray.studies.geometry_result import make_family_result, make_geometry_result
from lrh_ray.studies.passes import Ledger, PlannedPass
from lrh_ray.studies.places import Place
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.twins import standing_twin
from lrh_ray.studies.weights import find_checkpoint

LABELS = "corpus"
ALL = "all"
SUMS, DIRECTIONS = "sums of rows", "products of directions"


def geometry(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Measure the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        SiteError: A site that the store does not have.
        UnknownName: A concept that its labels do not have.
        NotEnoughData: Fewer documents than groups, or rows without a direction.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_sealed(config.store_location)
    twin = standing_twin(config, store)
    stores = {"trained": store} | ({} if twin is None else {"untrained": twin})
    question = _question(config, stores)
    if standing := standing_result(question, config.results_path):
        return standing
    values, codes = _codes(config.geometry, store)
    groups = _groups(config.geometry, store)
    found: list[SiteGeometry] = []
    gains: dict[str, list[SiteGains]] = {}
    sites = _sites(config.geometry, store)
    progress.begin("inner products of rows", len(sites) * len(stores), "sites")
    ledger = Ledger(_planned_passes(config.geometry, store, sites, models=len(stores), values=len(values)))
    with connected(address) as cluster:
        ledger.require_memory(store.plan.num_blocks, cluster.cpus, "use fewer geometry.groups, or no geometry.by")
        for model, opened in stores.items():
            rows = GeometryRows(
                place=_place(opened),
                sinks=_place(store),
                config=config.geometry,
                groups=groups,
                codes=codes,
                num_codes=len(values) + 1,
            )
            for site in sites:
                found.append(_site(rows, model, site, ledger, values))
                progress.advance(1)
            if config.geometry.gain_documents:
                task = GainTask(rows=rows, sequences=_documents(config.geometry, store))
                gains[model] = sample([one.scale for one in found if one.model == model], task)
    seconds = round(time.monotonic() - started, 1)
    return save_result(
        make_geometry_result(question, store, config.geometry, found, gains, ledger, seconds), config.results_path
    )


def family_geometry(
    config: RunConfig, *, folder: Path, address: str = EMBEDDED, progress: Progress | None = None
) -> Path:
    """Extract and measure every model of the family; returns the folder of the result over all of them.

    Raises:
        ConfigError: The family has fewer than two models.
        Everything that `extract` and `geometry` raise.
    """
    progress, started = progress or Silent(), time.monotonic()
    names = config.geometry.family
    if len(names) < 2:
        raise ConfigError(f"geometry.family is {list(names)!r}; entropy against size needs two models or more.")
    members = []
    for name in names:
        model = replace(config.model, name=name)
        member = replace(
            config,
            name=f"{config.name}-{name.rstrip('/').rpartition('/')[2]}",
            model=model,
            geometry=replace(config.geometry, family=()),
        )
        extract(member, folder=folder, address=address, progress=progress)
        described = describe_model(find_checkpoint(model, progress), model, config.store.sites)
        result = geometry(member, address=address, progress=progress)
        members.append(FamilyMember(name=name, parameters=described.tree.num_parameters, result=result))
    seconds = round(time.monotonic() - started, 1)
    return save_result(make_family_result(config, members, seconds), config.results_path)


def _place(store: Store) -> Place:
    return Place(location=absolute(store.location), root=store.root)


def _question(config: RunConfig, stores: dict[str, Store]) -> Result:
    resolved: dict[str, Plain] = {
        **as_plain(config.geometry),
        "sites": list(_sites(config.geometry, stores["trained"])),
        "interval": "95 %, jackknife over groups of documents",
    }
    return Result(
        kind="geometry",
        title=f"Geometry of {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={model: store.root for model, store in stores.items()},
        measures=(),
    )


def _sites(config: GeometryConfig, store: Store) -> Sequence[str]:
    for site in config.sites:
        if site not in store.sites:
            raise SiteError(f"geometry.sites names {site!r}; the store has {', '.join(store.sites)}.")
    return config.sites or store.sites


def _codes(config: GeometryConfig, store: Store) -> tuple[tuple[str, ...], np.ndarray]:
    """Values of the concept `by`, and the value of each sequence; the number after the last one where it has none."""
    if config.by is None:
        return (), np.zeros(len(store.document_ids), dtype=np.int64)
    labels = store.labels(LABELS)
    known = sorted(name for name, concept in labels.concepts.items() if concept.level == "document")
    if config.by not in known:
        raise UnknownName(
            f"geometry.by is {config.by!r}; document-level concepts of the store: {', '.join(known) or 'none'}."
        )
    values = labels.concepts[config.by].values
    codes = labels.document_codes(config.by)
    return values, np.where(codes < 0, len(values), codes)


def _groups(config: GeometryConfig, store: Store) -> np.ndarray:
    """Group of each sequence: documents are dealt in a random order."""
    ids, document = np.unique(np.asarray(store.document_ids), return_inverse=True)
    if len(ids) < config.groups:
        raise NotEnoughData(
            f"{len(ids)} documents cannot be dealt into {config.groups} groups; lower geometry.groups, or add some."
        )
    dealt = np.random.default_rng([config.seed, 0]).permutation(len(ids)) % config.groups
    return np.asarray(dealt[document])


def _documents(config: GeometryConfig, store: Store) -> list[int]:
    """Sequences on which gains are measured."""
    order = np.random.default_rng([config.seed, 1]).permutation(len(store.document_ids))
    return [int(sequence) for sequence in order[: config.gain_documents]]


def _planned_passes(
    config: GeometryConfig, store: Store, sites: Sequence[str], *, models: int, values: int
) -> Sequence[PlannedPass]:
    """Sums of rows, then the products of their directions, kept apart by group and value: N D^2 FLOP a site."""
    width, rows = max(store.plan.site(site).width for site in sites), store.plan.num_valid_rows
    read, groups = rows * width * DTYPES[store.plan.dtype].itemsize, config.groups * (values + 1)
    most = models * len(sites)
    return (
        PlannedPass(name=SUMS, most=most, bytes_read=read, flops=3.0 * rows * width, state=8 * width),
        PlannedPass(
            name=DIRECTIONS,
            most=most,
            bytes_read=read,
            flops=float(rows) * width**2,
            state=8 * (groups * (width**2 + 1) + width),
        ),
    )


def _site(rows: GeometryRows, model: str, site: str, ledger: Ledger, values: Sequence[str]) -> SiteGeometry:
    blocks = range(rows.place.open().plan.num_blocks)
    sums = ledger.reduce(SUMS, blocks, SumPass(rows=rows, site=site))
    grams = ledger.reduce(DIRECTIONS, blocks, GramPass(rows=rows, site=site, mean=sums.mean))
    subsets = {ALL: np.ones(rows.num_codes)}
    subsets |= {f"{rows.config.by}={value}": np.eye(rows.num_codes)[code] for code, value in enumerate(values)}
    try:
        spectra = [_spectra(rows, grams, documents, codes) for documents, codes in subsets.items()]
    except NotEnoughData as error:
        raise NotEnoughData(f"Site {site!r}: {error}") from error
    return SiteGeometry(
        model=model,
        site=site,
        spectra=spectra,
        scale=SiteScale(site=site, mean=sums.mean, mean_square=sums.mean_square),
        without_direction=grams.without_direction,
    )


def _spectra(rows: GeometryRows, grams: UnitGrams, documents: str, codes: np.ndarray) -> Spectra:
    def of(groups: np.ndarray) -> UnitSpectrum:
        return grams.spectrum(np.outer(groups, codes).reshape(-1))

    every = np.ones(rows.config.groups)
    return Spectra(
        documents=documents,
        whole=of(every),
        without=[of(every - np.eye(rows.config.groups)[group]) for group in range(rows.config.groups)],
    )
