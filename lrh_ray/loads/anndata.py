"""Rows, or means of documents, as AnnData: a matrix with a table of observations, in memory.

AnnData keeps `obs` in memory and has no bfloat16, so it is a format for subsets and for document means, never for a
whole store: what would exceed `max_bytes` is refused before anything is read.

    adata = to_anndata("runs/demo", "resid.15", positions=range(8))     # obs: document, position, token_id
    means = document_means("runs/demo", "resid.15")                     # obs: document, rows

`uns["lrh"]` says where the numbers come from: root digest, plan digest, model and site.

What can go wrong: anndata is missing (`DependencyMissing`); the subset is too large (`TooLarge`).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lrh_ray.errors import TooLarge, UnknownName
from lrh_ray.loads.arrays import as_store, library
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import RowKeys, Store

MAX_BYTES = 4 << 30


def to_anndata(
    store: Store | Location,
    site: str,
    *,
    documents: Sequence[str] | None = None,
    positions: range | None = None,
    sinks: Literal["keep", "drop"] = "keep",
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Rows that pass the filters as `anndata.AnnData`: X float32 [rows, feature], in stored order.

    Args:
        store: A store or its place.
        site: Name of a site.
        documents: Keep only rows of these document ids.
        positions: Keep only these token positions.
        sinks: `drop` leaves out rows that are attention sinks at this site.
        max_bytes: Largest X allowed, in bytes.

    Raises:
        DependencyMissing: anndata is not installed.
        UnknownName: A document the store does not have.
        TooLarge: X would exceed `max_bytes`.
    """
    anndata = library("anndata")
    source = as_store(store, (site,))
    wanted = _wanted(source, documents)
    masks = {block: source.row_mask(block, site, wanted, positions, sinks) for block in range(source.plan.num_blocks)}
    num_rows, width = sum(int(mask.sum()) for mask in masks.values()), source.plan.site(site).width
    _check_size(num_rows * width * 4, max_bytes)
    x_ND, keys, filled = np.empty((num_rows, width), dtype=np.float32), [], 0
    for block, mask in masks.items():
        if count := int(mask.sum()):
            x_ND[filled : filled + count] = source.block_rows(site, block)[mask]
            keys.append(source.keys(block).select(mask))
            filled += count
    names = source.document_ids
    observations = {
        "document": [names[doc] for part in keys for doc in part.doc.tolist()],
        "position": _column(keys, "position"),
        "token_id": _column(keys, "token_id"),
    }
    return _labelled(anndata, source, site, x_ND, observations, _column(keys, "index").astype(str))


def document_means(store: Store | Location, site: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """The mean row of every document as `anndata.AnnData`: X float32 [documents, feature], summed in float64.

    One pass, block by block. A document that was split over several sequences has one mean. The order is that of first
    appearance in the store.

    Raises:
        DependencyMissing: anndata is not installed.
        TooLarge: The float64 sums would exceed `max_bytes`.
    """
    anndata = library("anndata")
    source = as_store(store, (site,))
    index_of = {name: index for index, name in enumerate(dict.fromkeys(source.document_ids))}
    document_of = np.array([index_of[name] for name in source.document_ids], dtype=np.int64)
    width = source.plan.site(site).width
    _check_size(len(index_of) * width * 8, max_bytes)
    sums, counts = np.zeros((len(index_of), width)), np.zeros(len(index_of), dtype=np.int64)
    for block in range(source.plan.num_blocks):
        doc = source.keys(block).doc
        first = np.flatnonzero(np.diff(doc, prepend=-1))  # a sequence's rows stand together
        if len(first):
            rows = source.block_rows(site, block).astype(np.float64)
            np.add.at(sums, document_of[doc[first]], np.add.reduceat(rows, first, axis=0))
            np.add.at(counts, document_of[doc[first]], np.diff(first, append=len(doc)))
    observations = {"document": list(index_of), "rows": counts}
    means = (sums / counts[:, None]).astype(np.float32)
    return _labelled(anndata, source, site, means, observations, np.array(list(index_of)))


def _wanted(store: Store, documents: Sequence[str] | None) -> np.ndarray | None:
    """Which stored sequences belong to the documents; None for all."""
    if documents is None:
        return None
    if unknown := set(documents) - set(store.document_ids):
        raise UnknownName(f"The store has no document {sorted(unknown)[0]!r} ({len(unknown)} of those asked for).")
    return np.isin(store.document_ids, list(documents))


def _column(keys: Sequence[RowKeys], name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in keys] or [np.empty(0, dtype=np.int64)])


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooLarge(
            f"This needs {num_bytes:,} bytes in memory; the limit is {max_bytes:,}. Choose fewer documents or "
            f"positions, raise max_bytes, or stay lazy with lrh_ray.loads.arrays.open_dask."
        )


def _labelled(
    anndata: Any, store: Store, site: str, x_ND: np.ndarray, observations: dict[str, Any], names: np.ndarray
) -> Any:
    pd = library("pandas")
    model = store.plan.identity.get("model")
    facts = {"root": store.root, "plan": store.plan.digest, "site": site, "dtype": store.plan.dtype}
    facts["model"] = str(model.get("name")) if isinstance(model, dict) else "unknown"
    index = pd.Index(names.astype(str).astype(object), dtype="object")
    return anndata.AnnData(X=x_ND, obs=pd.DataFrame(observations, index=index), uns={"lrh": facts})
