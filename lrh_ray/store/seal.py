"""Create a store from a plan, and seal it when every block is committed.

The seal merges statistics, names the sink threshold of each site, packs the commit records and writes `manifest.json`.
A sealed store is immutable; labels may be added beside it. Blocks that cannot be computed keep a store from being
sealed, unless the gap is allowed by name: the manifest then lists the missing blocks, and a later run may fill them.
The parity certificate is an opaque record here; whoever has the model makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from lrh_ray.digests import digest_bytes
from lrh_ray.durable import disk_errors
from lrh_ray.errors import StoreCorrupt, StoreIncomplete
from lrh_ray.records import Context, Corpus, Plain, TokenBatch
from lrh_ray.store.commit_records import STATISTICS, Commit, object_key
from lrh_ray.store.commits import PACK, pack, publish, read_commits, recover, root_digest
from lrh_ray.store.context import KEYS as CONTEXT_KEYS
from lrh_ray.store.context import has_context, write_context
from lrh_ray.store.documents import DOCUMENTS, labels_key, text_digest, write_documents, write_labels
from lrh_ray.store.fields import NUMBER, Types, require_fields, require_values
from lrh_ray.store.objects import TEMPORARY, Location, Objects, open_objects
from lrh_ray.store.origin import writing_command
from lrh_ray.store.plan import SHAPE, TABLE, Plan, claim_folder, is_planned, seal_plan, write_table
from lrh_ray.store.remote import RemoteObjects, probe_conditions
from lrh_ray.store.stamps import read_record, stamped
from lrh_ray.store.statistics import SINK_FACTOR, SiteStatistics, decode, median_norm, merge_all
from lrh_ray.store.tree import TREE, create_tree, statistics_objects

MANIFEST = "manifest.json"
CONFIG = "plan/config.yaml"
CORPUS_LABELS = "corpus"
MANIFEST_FIELDS: Mapping[str, Types] = {
    "root": str,
    "plan": str,
    "blocks": int,
    "missing": list,
    "rows": int,
    "bytes": int,
    "seconds": NUMBER,
    "sites": dict,
    "parity": dict,
    "files": dict,
}
SITE_FIELDS: Mapping[str, Types] = {
    "rows": int,
    "median_norm": NUMBER,
    "sink_threshold": NUMBER,
    "sinks": int,
    "absmax": NUMBER,
}


def create_store(
    location: Location,
    plan: Plan,
    tokens: TokenBatch,
    corpus: Corpus,
    *,
    config_yaml: str,
    provenance: Mapping[str, Plain],
    context: Context | None = None,
) -> None:
    """Claim the place for this plan and write everything that exists before the first forward pass; idempotent.

    Raises:
        StoreConflict: The place holds another plan's store, or ignores conditional writes.
        StoreFull: No space.
    """
    objects = open_objects(location)
    with disk_errors(f"the plan of {location}"):
        if not claim_place(objects, plan):
            return
        by_id = {document.id: document for document in corpus.documents}
        stored = [by_id[tokens.document_ids[source]] for source in plan.source]
        text_digests = np.array([list(text_digest(document.text)) for document in stored], dtype=np.uint8)
        write_table(objects, plan)
        if context is not None:
            write_context(objects, plan, context, tokens)
        write_documents(objects, stored)
        write_labels(objects, CORPUS_LABELS, corpus.concepts, corpus.documents)
        objects.put(CONFIG, config_yaml.encode())
        create_tree(objects, plan, tokens, text_digests, provenance)
        seal_plan(objects, plan, plan_files(objects, plan))


def claim_place(objects: Objects, plan: Plan) -> bool:
    """Make this place the store of this plan; False where all of the plan stands there already.

    Raises:
        StoreConflict: The place holds another plan's store, or ignores conditional writes.
    """
    if isinstance(objects, RemoteObjects):
        probe_conditions(objects)
    claim_folder(objects, plan)
    return not is_planned(objects)


def plan_files(objects: Objects, plan: Plan) -> dict[str, dict[str, Plain]]:
    """Size and digest of every object that exists before the first block, as it stands."""
    keys = [TABLE, SHAPE, DOCUMENTS, CONFIG, labels_key(CORPUS_LABELS)]
    keys += CONTEXT_KEYS if has_context(plan) else ()
    keys += [entry.key for entry in objects.list(TREE) if _is_planned_file(entry.key)]
    return {key: file_facts(objects, key) for key in sorted(keys)}


def _is_planned_file(key: str) -> bool:
    """Metadata, and chunks of the plan's own arrays; not what blocks and seals bring, which a repair may find there."""
    later = key.startswith(tuple(f"{TREE}/{group}/" for group in ("acts", "stats", "norms")))
    return not TEMPORARY.fullmatch(key.rpartition("/")[2]) and (key.endswith("/zarr.json") or not later)


def file_facts(objects: Objects, key: str) -> dict[str, Plain]:
    """Size and digest of an object.

    Raises:
        StoreCorrupt: It is missing.
    """
    found = objects.get(key)
    if found is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {key} while it was written. Repeat the command.")
    return {"bytes": found.num_bytes, "digest": digest_bytes(found.data)}


def read_manifest(objects: Objects) -> dict[str, Plain] | None:
    """The manifest, its fields checked; None where the store is not sealed.

    Raises:
        StoreCorrupt: It is damaged, or no manifest.
    """
    manifest = read_record(objects, MANIFEST)
    if manifest is None:
        return None
    require_fields(manifest, MANIFEST_FIELDS, MANIFEST)
    require_values(manifest["files"], dict, f"files in {MANIFEST}")
    require_values(manifest["sites"], dict, f"sites in {MANIFEST}")
    require_values(dict(enumerate(cast(Sequence[Plain], manifest["missing"]))), int, f"missing in {MANIFEST}")
    for site, facts in cast(Mapping[str, Plain], manifest["sites"]).items():
        require_fields(facts, SITE_FIELDS, f"{site!r} in {MANIFEST}")
    return manifest


def check_manifest(manifest: Mapping[str, Plain] | None, plan: Plan) -> None:
    """Refuse the manifest of another plan.

    Raises:
        StoreCorrupt: Another plan's digest or other sites.
    """
    if manifest is not None and (
        manifest["plan"] != plan.digest
        or cast(Mapping[str, Plain], manifest["sites"]).keys() != {site.name for site in plan.sites}
    ):
        raise StoreCorrupt(f"{MANIFEST} was written for another plan. `lrh verify STORE` tells more.")


def is_sealed(location: Location) -> bool:
    return read_manifest(open_objects(location)) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteSummary:
    """Statistics of one site over the whole store."""

    rows: int
    median_norm: float
    sink_threshold: float
    sinks: int
    absmax: float


def seal(
    location: Location, plan: Plan, *, parity: Mapping[str, Plain], allow_missing: bool = False
) -> Mapping[str, Plain]:
    """Publish what is committed, merge statistics, write the manifest; returns it. Sealing twice changes nothing.

    Args:
        location: The store.
        plan: Its plan.
        parity: The parity certificate, kept as it is.
        allow_missing: Seal although blocks are missing; the manifest names them.

    Raises:
        StoreIncomplete: Blocks are missing; their row ranges are named.
        StoreCorrupt: A sealed store whose blocks were computed again has another content now.
    """
    objects = open_objects(location)
    recover(objects, plan.num_blocks)
    commits = read_commits(objects, plan.num_blocks)
    for commit in commits.values() if objects.stages else ():
        publish(objects, commit)  # nothing is sealed whose files are not where their records say
    missing = [block for block in range(plan.num_blocks) if block not in commits]
    if missing and (not allow_missing or not commits):
        raise StoreIncomplete(
            f"{len(missing)} of {plan.num_blocks} blocks are missing: {describe_rows(plan, missing)}. "
            f"Repeat {writing_command(plan.identity, objects.location)}; it computes only these."
        )
    standing = read_manifest(objects)
    if standing is not None:
        _confirm(objects, standing, root_digest(plan, commits))
    with disk_errors("the manifest"):
        summaries, files = write_statistics(objects, plan, commits)
        pack(objects, commits)
        manifest = _manifest(plan, commits, summaries, parity if standing is None else _parity(standing))
        put_latest(objects, MANIFEST, stamped({**manifest, "files": {**files, PACK: file_facts(objects, PACK)}}))
    return read_manifest(objects) or {}


def _parity(manifest: Mapping[str, Plain]) -> Mapping[str, Plain]:
    return cast(Mapping[str, Plain], manifest["parity"])


def _confirm(objects: Objects, manifest: Mapping[str, Plain], content: str) -> None:
    """A sealed store whose blocks were computed again must have the content it was sealed with."""
    if manifest["root"] != content and not manifest["missing"]:
        raise StoreCorrupt(
            f"The store {objects.location!r} was sealed with root {manifest['root']} and its blocks now give "
            f"{content}: blocks computed again differ in their bytes (another machine or version). Extract into a new "
            f"run."
        )


def put_latest(objects: Objects, key: str, data: bytes) -> None:
    """Make an object hold `data`, replacing what stands; for objects that have one writer at a time."""
    standing = objects.get(key)
    if standing is None or standing.data != data:
        objects.put(key, data, over=None if standing is None else standing.tag)


def _manifest(
    plan: Plan, commits: Mapping[int, Commit], summaries: Mapping[str, SiteSummary], parity: Mapping[str, Plain]
) -> dict[str, Plain]:
    return {
        "root": root_digest(plan, commits),
        "plan": plan.digest,
        "blocks": len(commits),
        "missing": [block for block in range(plan.num_blocks) if block not in commits],
        "rows": sum(commit.valid_rows for commit in commits.values()),
        "bytes": sum(stored.num_bytes for commit in commits.values() for stored in commit.objects.values()),
        "seconds": round(sum(commit.seconds for commit in commits.values()), 3),
        "sites": {
            name: {
                "rows": site.rows,
                "median_norm": site.median_norm,
                "sink_threshold": site.sink_threshold,
                "sinks": site.sinks,
                "absmax": site.absmax,
            }
            for name, site in summaries.items()
        },
        "parity": dict(parity),
    }


def describe_rows(plan: Plan, blocks: Sequence[int], most: int = 5) -> str:
    """Row ranges of blocks, for messages."""
    size = plan.rows_per_block
    shown = [f"block {block} (rows {block * size}..{(block + 1) * size - 1})" for block in blocks[:most]]
    more = [f"and {len(blocks) - most} more"] if len(blocks) > most else []
    return ", ".join(shown + more)


def write_statistics(
    objects: Objects, plan: Plan, commits: Mapping[int, Commit]
) -> tuple[dict[str, SiteSummary], dict[str, Plain]]:
    """Merge the blocks' statistics in block order, one site at a time; summaries, and the facts of the files written.

    Norms of padding rows are 0, of missing blocks NaN.
    """
    summaries, files = {}, {}
    for site in plan.sites:
        blocks = {block: _block_statistics(objects, block, site.name) for block in commits}
        moments = merge_all(block.moments for block in blocks.values())
        arrays = {
            f"stats/{site.name}/count": np.array([moments.count], dtype=np.int64),
            f"stats/{site.name}/mean": moments.mean,
            f"stats/{site.name}/m2": moments.m2,
            f"stats/{site.name}/absmax": moments.absmax,
            f"norms/{site.name}": _padded_norms(plan, blocks),
        }
        for key, data in statistics_objects(plan, arrays):
            put_latest(objects, key, data)
            files[key] = {"bytes": len(data), "digest": digest_bytes(data)}
        summaries[site.name] = _summary(list(blocks.values()), float(moments.absmax.max()))
    return summaries, cast(dict[str, Plain], files)


def _block_statistics(objects: Objects, block: int, site: str) -> SiteStatistics:
    key = object_key(STATISTICS, block)
    found = objects.get(key)
    if found is None:
        raise StoreCorrupt(f"{key} is committed and missing. `lrh verify STORE --repair` drops the block.")
    return decode(found.data, [site])[site]


def _padded_norms(plan: Plan, blocks: Mapping[int, SiteStatistics]) -> np.ndarray:
    norms = np.full((plan.num_blocks, plan.rows_per_block), np.nan, dtype=np.float32)
    for block, statistics in blocks.items():
        norms[block] = 0
        norms[block, : len(statistics.norms)] = statistics.norms
    return norms.reshape(-1)


def _summary(blocks: Sequence[SiteStatistics], absmax: float) -> SiteSummary:
    norms = [block.norms for block in blocks]
    median = median_norm(norms)
    return SiteSummary(
        rows=sum(map(len, norms)),
        median_norm=median,
        sink_threshold=SINK_FACTOR * median,
        sinks=sum(int((part > SINK_FACTOR * median).sum()) for part in norms),
        absmax=absmax,
    )


def sink_thresholds(manifest: Mapping[str, Plain]) -> dict[str, float]:
    sites = cast(Mapping[str, Mapping[str, float]], manifest["sites"])
    return {name: float(site["sink_threshold"]) for name, site in sites.items()}
