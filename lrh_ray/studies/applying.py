"""Apply what a result has fitted to the rows of a store, and keep what comes out as a derived store.

    facts = apply_fitted(Path("runs/demo/results/1f3a"), "runs/demo/store", site="resid.15", name="topk")
    store = open_store(["runs/demo/store", facts["store"]])      # rows and codes of the same tokens, side by side

Blocks go through the pool as in extraction: a worker reads the rows of a block, computes, writes and commits them
itself, so every block is there exactly once, and the same command goes on after a kill. Nothing but the recipe and
receipts travels.

| fitted | sites of the derived store |
|---|---|
| an autoencoder | `SITE.NAME.index`, `SITE.NAME.value`: codes of each row; `SITE.NAME.code` where all is no larger |
| a transcoder | the same, with the name of its map in the place of SITE; its codes are made of the rows it reads |
| linear probes | `SITE.NAME.score`: a number for each concept, in the order in which the plan's identity names them |

Where the number of codes of a row has no bound (all kinds but `topk`), one pass over the store counts the most first.

What can go wrong: rows of another width than what was fitted reads are `SiteError`; autoencoders without zeros (conca)
of so many latents that a chunk would not fit a store are `TooLarge`; a standing store that was derived from something
else is `StoreConflict`.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from lrh_ray.analyses.sae.applied import Application, DenseCodes, Scores, SparseCodes
from lrh_ray.digests import canonical_json, digest_json
from lrh_ray.errors import SiteError, StoreConflict, StoreMissing
from lrh_ray.records import Plain, SiteSpec
from lrh_ray.runtime.cluster import EMBEDDED, Cluster, connected
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.runtime.nonce import require_shared
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.store.commits import pending_blocks, recover
from lrh_ray.store.derived import create_derived, derived_plan, parent_of
from lrh_ray.store.objects import Location, absolute, open_objects
from lrh_ray.store.origin import DERIVED
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.reader import Store, open_sealed, open_store
from lrh_ray.store.seal import is_sealed, seal
from lrh_ray.studies.apply_workers import ApplyTask, CountPass
from lrh_ray.studies.extraction import refuse_without_space, store_facts
from lrh_ray.studies.fitted import FittedAutoencoder, FittedProbes, open_fitted
from lrh_ray.studies.progress import Progress, Silent

PARITY: Mapping[str, Plain] = {
    "passed": None,
    "kind": "none",
    "reason": "derived from the rows of another store, which has a certificate of its own",
}


def apply_fitted(
    source: Path,
    location: Location,
    *,
    site: str | None = None,
    name: str | None = None,
    target: Location | None = None,
    pool: PoolConfig | None = None,
    address: str = EMBEDDED,
    progress: Progress | None = None,
) -> dict[str, Plain]:
    """Write the derived store, or finish it, or find it finished; returns facts about it.

    Args:
        source: Folder of a result, or of an autoencoder in the files of another tool.
        location: Store whose rows are read; sealed.
        site: Of the fitted object, or a transcoder's map, where the result has several.
        name: Of the fitted object, where the result has several.
        target: Where the derived store stands; None: beside its parent, named by what it is.
        pool: Workers; None: one on each node.
        address: Ray cluster.
        progress: Told about blocks.

    Raises:
        SiteError: The store has no such site, or rows of another width there.
        StoreIncomplete: The store is not sealed.
        StoreConflict: The place holds something else.
        Everything that `open_fitted` and `map_blocks` raise.
    """
    progress = progress or Silent()
    fitted, store = open_fitted(source, site=site, name=name), open_sealed(location)
    parent = parent_of(store)
    _require_rows(store, fitted)
    lineage: dict[str, Plain] = {"root": store.root, "plan": parent.plan.digest, **fitted.lineage}
    place = _beside(parent.objects.location, fitted, lineage) if target is None else target
    standing = _standing(place, lineage)
    if standing is None or not _is_finished(place, standing):
        with connected(address) as cluster:
            application = _application(fitted, store, standing, progress)
            plan = standing or _plan(parent, fitted, application, lineage)
            create_derived(place, parent, plan, config_yaml=_asked(fitted, lineage), provenance=_provenance(lineage))
            _apply_blocks(place, plan, store, fitted.reads, application, pool or PoolConfig(), cluster, progress)
        progress.begin("sealing")
        seal(place, plan, parity=PARITY)
    return {**store_facts(open_store(place)), "derived_from": store.location, "parent_root": store.root}


def _require_rows(store: Store, fitted: FittedAutoencoder | FittedProbes) -> None:
    if absent := next((site for site in fitted.reads if site not in store.sites), None):
        raise SiteError(f"{store.location!r} has no site {absent!r}. It has: {', '.join(store.sites)}.")
    width = sum(store.plan.site(site).width for site in fitted.reads)
    if width != fitted.width:
        raise SiteError(
            f"Rows of {fitted.site!r} in {store.location!r} have {width} features and {fitted.name!r} reads "
            f"{fitted.width}: it was fitted to another model."
        )


def _beside(parent: str, fitted: FittedAutoencoder | FittedProbes, lineage: Mapping[str, Plain]) -> Location:
    """A place next to the parent, another one for other weights or other rows."""
    location = f"{parent.rstrip('/')}-{fitted.label}-{digest_json(lineage)[:8]}"
    return location if "://" in location else Path(location)


def _standing(location: Location, lineage: Mapping[str, Plain]) -> Plan | None:
    """The plan of the store that stands there, if it is this one: nothing has to be counted again."""
    try:
        plan = read_plan(open_objects(location))
    except StoreMissing:
        return None
    if plan.identity.get(DERIVED) != lineage:
        raise StoreConflict(f"{str(location)!r} holds another store. Choose another place (-o), or move it aside.")
    return plan


def _is_finished(location: Location, plan: Plan) -> bool:
    """Whether every block is there: a repair takes some out of a store that stays sealed."""
    return is_sealed(location) and not pending_blocks(open_objects(location), plan)


def _application(
    fitted: FittedAutoencoder | FittedProbes, store: Store, standing: Plan | None, progress: Progress
) -> Application:
    """How rows become columns; the number of codes of a row is counted unless it is known."""
    if isinstance(fitted, FittedProbes):
        return Scores(readout=fitted.readout)
    dense = DenseCodes(reader=fitted.reader, num_latents=fitted.num_latents)
    if fitted.exchanged.kind == "conca":
        return dense
    if standing is not None:
        num = standing.sites[0].width
        return dense if len(standing.sites) == 1 else SparseCodes(reader=fitted.reader, most=num)
    if fitted.exchanged.k is not None and fitted.exchanged.kind == "topk":
        most = fitted.exchanged.k
    else:
        progress.begin("counting the most codes of a row")
        count = CountPass(location=absolute(store.location), root=store.root, sites=fitted.reads, reader=fitted.reader)
        most = max(1, reduce_blocks(range(store.plan.num_blocks), count).count)
    return dense if 2 * most >= fitted.num_latents else SparseCodes(reader=fitted.reader, most=most)


def _plan(
    parent: Part,
    fitted: FittedAutoencoder | FittedProbes,
    application: Application,
    lineage: Mapping[str, Plain],
) -> Plan:
    layer = parent.plan.site(fitted.reads[0]).layer if len(fitted.reads) == 1 else None
    sites = [
        SiteSpec(name=_site(fitted, column.name), width=column.width, layer=layer, dtype=column.dtype)
        for column in application.columns
    ]
    return derived_plan(parent, sites, lineage)


def _site(fitted: FittedAutoencoder | FittedProbes, column: str) -> str:
    return f"{fitted.label}.{column}"


def _asked(fitted: FittedAutoencoder | FittedProbes, lineage: Mapping[str, Plain]) -> str:
    return canonical_json({"apply": lineage, "site": fitted.site, "name": fitted.name}).decode() + "\n"


def _provenance(lineage: Mapping[str, Plain]) -> dict[str, Plain]:
    return {"made_by": "lrh apply", "created_by": f"lrh-ray {metadata.version('lrh-ray')}", "derived": dict(lineage)}


def _apply_blocks(
    location: Location,
    plan: Plan,
    store: Store,
    sites: tuple[str, ...],
    application: Application,
    pool: PoolConfig,
    cluster: Cluster,
    progress: Progress,
) -> None:
    objects = open_objects(location)
    recover(objects, plan.num_blocks)
    pending = pending_blocks(objects, plan)
    refuse_without_space(objects, plan, len(pending))
    done = plan.num_valid_rows - int(plan.valid_rows[list(pending)].sum())
    progress.begin("applying", plan.num_valid_rows, "rows", done)
    place = absolute(location)
    require_shared(place, cluster)
    task = ApplyTask(
        location=place, parent=absolute(store.location), root=store.root, sites=sites, application=application
    )
    map_blocks(
        pending,
        task,
        replace(pool, gpus=0.0),
        cluster,
        on_receipt=lambda receipt: progress.advance(receipt.rows),
        on_loss=progress.say,
    )
