"""Derived stores: what was computed from the rows of a store, row for row, in a store of its own.

    plan = derived_plan(parent, sites, {"root": parent.root, "result": digest, ...})
    create_derived(location, parent, plan, config_yaml=...)
    # then BlockWriter for every block, and seal

A derived store takes over the parent's documents, labels, order, blocks and chunks, so that block b of both holds the
same rows, and `open_store([parent, derived])` reads them side by side. Its sites have data types of their own. What it
was made from stands in the identity of its plan under `derived`, hence in `dataset.json`, and in its digest.

Sparse codes are two sites: `<name>.index` [rows, K] int32 and `<name>.value` [rows, K] float32. A row with fewer codes
ends in pairs of 0 and 0; codes that count are positive.

What can go wrong: a parent of several stores joined has no plan of its own; sites so wide that a chunk of the parent's
rows exceeds what a store holds are `TooLarge`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.durable import disk_errors
from lrh_ray.errors import StoreConflict, StoreCorrupt, TooLarge
from lrh_ray.records import Plain, SiteSpec, TokenBatch
from lrh_ray.store.context import KEYS as CONTEXT_KEYS
from lrh_ray.store.context import has_context
from lrh_ray.store.documents import DOCUMENTS, labels_key, text_digest
from lrh_ray.store.objects import Location, Objects, open_objects, put_same
from lrh_ray.store.origin import DERIVED
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, assemble_plan, seal_plan, write_table
from lrh_ray.store.plan_shape import MAX_CHUNK_BYTES, Shape
from lrh_ray.store.reader import Store
from lrh_ray.store.seal import CONFIG, CORPUS_LABELS, claim_place, plan_files
from lrh_ray.store.tree import PLAN_ARRAYS, create_tree, read_rows

COMPRESSION = "zstd1"
"""Rows end in zeros, which then take no room."""


def parent_of(store: Store) -> Part:
    """The one store on disk that a derived store is made from.

    Raises:
        StoreConflict: Several stores were opened as one.
    """
    if len(store.parts) != 1:
        raise StoreConflict(
            f"{store.location!r} was opened with {len(store.parts) - 1} more stores; a derived store has one parent. "
            f"Derive from each by itself, and open the derived stores as one."
        )
    return store.parts[0]


def derived_plan(parent: Part, sites: Sequence[SiteSpec], lineage: Mapping[str, Plain]) -> Plan:
    """The plan of a store with the rows of `parent` and these sites.

    Raises:
        TooLarge: A site is so wide that a chunk of the parent's rows exceeds what a store holds.
    """
    plan = parent.plan
    widest = max(4 * site.width * plan.chunk_rows for site in sites)
    if widest > MAX_CHUNK_BYTES:
        raise TooLarge(
            f"{max(site.width for site in sites)} numbers a row make chunks of {widest / 1e6:.0f} MB in the "
            f"{plan.chunk_rows} rows of a chunk of {parent.objects.location!r}; a store holds chunks of "
            f"{MAX_CHUNK_BYTES / 1e6:.0f} MB. Only what is sparse or narrow can be derived from it."
        )
    names = {name: getattr(plan, name) for name in Shape.__slots__}
    shape = replace(Shape(**names), sites=tuple(sites), compression=COMPRESSION)
    table = np.stack([plan.source, plan.starts, plan.lengths])
    return assemble_plan({**plan.identity, DERIVED: dict(lineage)}, shape, table)


def create_derived(
    location: Location, parent: Part, plan: Plan, *, config_yaml: str, provenance: Mapping[str, Plain]
) -> None:
    """Claim the place and write all of the plan, most of it copied from the parent; idempotent.

    Raises:
        StoreConflict: The place holds another store.
        StoreFull: No space.
    """
    objects = open_objects(location)
    with disk_errors(f"the plan of {location}"):
        if not claim_place(objects, plan):
            return
        write_table(objects, plan)
        for key in (DOCUMENTS, labels_key(CORPUS_LABELS), *(CONTEXT_KEYS if has_context(plan) else ())):
            put_same(objects, key, _whole(parent.objects, key))
        put_same(objects, CONFIG, config_yaml.encode())
        digests = np.array([list(text_digest(text)) for text in parent.texts], dtype=np.uint8)
        create_tree(objects, plan, all_tokens(parent), digests, provenance)
        seal_plan(objects, plan, plan_files(objects, plan))


def all_tokens(part: Part) -> TokenBatch:
    """Who all rows of a store are, in the order in which its plan was given them."""
    plan = part.plan
    order = np.argsort(plan.source)
    lengths = plan.lengths[order]
    starts = np.append(0, np.cumsum(lengths)).astype(np.int64)
    rows = np.arange(starts[-1]) + np.repeat(plan.starts[order] - starts[:-1], lengths)
    whole = slice(0, plan.num_rows)
    columns = {name: read_rows(part.objects, plan, name, whole)[rows] for name in PLAN_ARRAYS if name != "doc"}
    return TokenBatch(
        document_ids=tuple(part.document_ids[stored] for stored in order.tolist()),
        token_ids=columns["token_id"],
        positions=columns["position"],
        char_start=columns["char_start"],
        char_end=columns["char_end"],
        starts=starts,
    )


def _whole(objects: Objects, key: str) -> bytes:
    found = objects.get(key)
    if found is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {key}. Restore it from a copy.")
    return found.data
