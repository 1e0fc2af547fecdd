"""Create a store from a plan, and seal it when every block is committed.

The seal merges statistics, names the sink threshold of each site, consolidates metadata and writes `manifest.json` by
put-if-absent. A sealed store is immutable. The parity certificate is an opaque record here; whoever has the model
makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from lrh_ray.digests import canonical_json, digest_json
from lrh_ray.durable import disk_errors
from lrh_ray.errors import StoreCorrupt, StoreIncomplete
from lrh_ray.records import Corpus, Plain, TokenBatch
from lrh_ray.store.commits import Commit, read_commits, recover, root_digest, statistics_path
from lrh_ray.store.documents import text_digest, write_documents, write_labels
from lrh_ray.store.objects import put_if_absent
from lrh_ray.store.plan import Plan, claim_folder, is_planned, read_json, seal_plan, write_table
from lrh_ray.store.statistics import SINK_FACTOR, SiteStatistics, decode, median_norm, merge_all
from lrh_ray.store.tree import add_arrays, create_tree

MANIFEST = "manifest.json"


def create_store(
    root: Path, plan: Plan, tokens: TokenBatch, corpus: Corpus, *, config_yaml: str, provenance: Mapping[str, Plain]
) -> None:
    """Claim the folder for this plan and write everything that exists before the first forward pass; idempotent.

    Raises:
        StoreConflict: The folder holds another plan's store.
        StoreFull: No space.
    """
    with disk_errors(f"the plan of {root}"):
        claim_folder(root, plan)
        if is_planned(root):
            return
        by_id = {document.id: document for document in corpus.documents}
        stored = [by_id[tokens.document_ids[source]] for source in plan.source]
        text_digests = np.array([list(text_digest(document.text)) for document in stored], dtype=np.uint8)
        write_table(root, plan)
        write_documents(root / "plan" / "documents.parquet", stored)
        write_labels(root / "labels" / "corpus.parquet", corpus.concepts, corpus.documents)
        put_if_absent(root / "plan" / "config.yaml", config_yaml.encode())
        create_tree(root / "data.zarr", plan, tokens, text_digests, provenance)
        seal_plan(root, plan)


def is_sealed(root: Path) -> bool:
    return (root / MANIFEST).exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteSummary:
    """Statistics of one site over the whole store."""

    rows: int
    median_norm: float
    sink_threshold: float
    sinks: int
    absmax: float


def seal(root: Path, plan: Plan, *, parity: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """Publish what is committed, merge statistics, write the manifest; returns it. Sealing twice changes nothing.

    Raises:
        StoreIncomplete: Blocks are missing; their row ranges are named.
    """
    recover(root)
    commits = read_commits(root)
    missing = [block for block in range(plan.num_blocks) if block not in commits]
    if missing:
        raise StoreIncomplete(
            f"{len(missing)} of {plan.num_blocks} blocks are missing: {describe_rows(plan, missing)}. "
            f"Repeat `lrh extract CONFIG`; it computes only these."
        )
    if is_sealed(root):
        return _confirm(root, root_digest(plan, commits))
    with disk_errors("the manifest"):
        summaries = write_statistics(root, plan)
        manifest = _manifest(plan, commits, summaries, parity)
        put_if_absent(root / MANIFEST, canonical_json(manifest))
    return read_json(root / MANIFEST)


def _confirm(root: Path, content: str) -> Mapping[str, Plain]:
    """A sealed store whose blocks were computed again must have the content it was sealed with."""
    manifest = read_json(root / MANIFEST)
    if manifest["root"] != content:
        raise StoreCorrupt(
            f"The store {str(root)!r} was sealed with root {manifest['root']} and its blocks now give {content}: "
            f"blocks computed again differ in their bytes (another machine or version). Extract into a new run."
        )
    return manifest


def _manifest(
    plan: Plan, commits: Mapping[int, Commit], summaries: Mapping[str, SiteSummary], parity: Mapping[str, Plain]
) -> dict[str, Plain]:
    return {
        "root": root_digest(plan, commits),
        "plan": plan.digest,
        "blocks": plan.num_blocks,
        "rows": plan.num_valid_rows,
        "bytes": sum(stored.num_bytes for commit in commits.values() for stored in commit.objects.values()),
        "seconds": round(sum(commit.seconds for commit in commits.values()), 3),
        "commits": digest_json([[block, commits[block].attempt] for block in sorted(commits)]),
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


def write_statistics(root: Path, plan: Plan) -> dict[str, SiteSummary]:
    """Merge the blocks' statistics in block order into `stats/<site>` and `norms/<site>`, one site at a time."""
    arrays: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
    summaries = {}
    for site in plan.sites:
        blocks = [decode(statistics_path(root, block), [site.name])[site.name] for block in range(plan.num_blocks)]
        moments = merge_all(block.moments for block in blocks)
        arrays[f"stats/{site.name}/count"] = (np.array([moments.count], dtype=np.int64), ("one",))
        arrays[f"stats/{site.name}/mean"] = (moments.mean, ("feature",))
        arrays[f"stats/{site.name}/m2"] = (moments.m2, ("feature",))
        arrays[f"stats/{site.name}/absmax"] = (moments.absmax, ("feature",))
        arrays[f"norms/{site.name}"] = (_padded_norms(plan, blocks), ("token",))
        summaries[site.name] = _summary(blocks, float(moments.absmax.max()))
    add_arrays(root / "data.zarr", arrays)
    return summaries


def _padded_norms(plan: Plan, blocks: Sequence[SiteStatistics]) -> np.ndarray:
    norms = np.zeros((plan.num_blocks, plan.rows_per_block), dtype=np.float32)
    for block, statistics in enumerate(blocks):
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
