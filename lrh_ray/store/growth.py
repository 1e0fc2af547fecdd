"""Grow a store without touching it: more sites on its rows, or more documents after them.

A sealed store is immutable, so what is added is a store of its own whose plan continues the base's: on the same rows
(`grow_sites`), or as a new epoch of blocks of the same size (`grow_documents`). `open_store([base, added])` reads both
as one. The base's digest stands in the added plan's identity.

What can go wrong: another model, tokenizer or rendering than the base's, a document whose text changed under the same
id, or nothing to add, are `StoreConflict`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lrh_ray.errors import StoreConflict
from lrh_ray.records import Document, ModelFacts, Plain, TokenBatch
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.documents import text_digest
from lrh_ray.store.packing import Packing, pack
from lrh_ray.store.plan import Plan, assemble_plan, full_identity
from lrh_ray.store.plan_shape import Shape
from lrh_ray.store.reader import Store

SAME = ("model", "model_dtype", "tokenizer", "render", "template", "bos", "too_long")


def new_documents(base: Store, documents: Sequence[Document]) -> tuple[Document, ...]:
    """Documents that the base does not have.

    Raises:
        StoreConflict: A document of the base has another text now.
    """
    known = dict(zip(base.document_ids, map(text_digest, base.texts), strict=True))
    changed = [one.id for one in documents if one.id in known and known[one.id] != text_digest(one.text)]
    if changed:
        raise StoreConflict(
            f"{len(changed)} documents of {base.location!r} have another text now, for example {changed[0]!r}. Give "
            f"them new ids, or extract into a new run."
        )
    return tuple(one for one in documents if one.id not in known)


def grow_plan(
    base: Store, tokens: TokenBatch, model: ModelFacts, config: StoreConfig, identity: Mapping[str, Plain]
) -> Plan:
    """The plan of what is added to `base`: new sites if `tokens` are its own, a new epoch of blocks otherwise.

    Raises:
        StoreConflict: The additions do not fit the base, or there is nothing to add.
        DocumentTooLong: A new document does not fit the base's block.
    """
    if len(base.groups) != 1:
        raise StoreConflict("store.base must be one store, or stores of the same rows; epochs are added to the first.")
    first = base.groups[0][0].plan
    whole = {**full_identity(tokens, model, config, identity), "base": first.digest}
    _refuse_other_origin(first, whole, base.location)
    if whole["tokens"] == first.identity["tokens"]:
        packing = Packing(order=first.source, starts=first.starts, num_blocks=first.num_blocks)
        sites = tuple(site for site in model.sites if site.name not in base.sites)
        if not sites:
            raise StoreConflict(
                f"{base.location!r} has all of these documents and all of these sites ({', '.join(base.sites)}). There "
                f"is nothing to add; name new sites, or new documents."
            )
    else:
        packing = pack(tokens.lengths, first.rows_per_block, config.seed)
        sites = tuple(base.plan.sites)
        if {site.name for site in sites} != {site.name for site in model.sites}:
            raise StoreConflict(
                f"New documents need the sites of {base.location!r}: {', '.join(base.sites)}. Name exactly these; add "
                f"documents and sites one after the other."
            )
    shape = Shape(
        sites=sites,
        dtype=first.dtype,
        rows_per_block=first.rows_per_block,
        chunk_rows=first.chunk_rows,
        num_blocks=packing.num_blocks,
        compression=config.compression,
    )
    lengths = np.asarray(tokens.lengths, dtype=np.int64)[packing.order]
    return assemble_plan(whole, shape, np.stack([packing.order, packing.starts, lengths]))


def _refuse_other_origin(base: Plan, ours: Mapping[str, Plain], location: str) -> None:
    wrong = [name for name in SAME if base.identity.get(name) != ours.get(name)]
    if wrong:
        raise StoreConflict(
            f"This run differs from {location!r} in {', '.join(wrong)}, so its rows would not be comparable. Use the "
            f"base's settings, or extract into a new run without store.base."
        )
