"""A site as a lazy dask array or a labelled xarray, block by block through our own reader.

Zarr readers can open a store's arrays themselves (`docs/loading.md`). What they miss: they see the padding rows at the
end of each block, and they do not know which blocks are committed. Here every chunk of the array is one block of the
store, read by `Store.block_rows`, so checksums are verified and padding never appears.

    array = open_dask("runs/demo", "resid.15")              # dask: [rows, 576] float32, one chunk per block
    labelled = open_xarray("runs/demo", "resid.15")         # dims (token, feature), lazy coordinates
    labelled[(labelled.position == 0).compute()].mean("token").compute()

A chunk knows the place and the root digest of the store, nothing else: it can travel to another process, where the
store is opened once. A store whose content changed since then is a `StoreConflict`.

What can go wrong: dask or xarray are missing (`DependencyMissing`); blocks are missing (`StoreIncomplete`); float16 is
asked of rows it cannot hold, or bits of a store that is not bfloat16 (`StoreConflict`).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np

from lrh_ray.errors import ConfigError, SiteError, StoreConflict, StoreIncomplete
from lrh_ray.layouts import Rows
from lrh_ray.optional import optional
from lrh_ray.store.objects import Location
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.reader import Store, open_store

Missing: TypeAlias = Literal["error", "skip"]
PORTABLE = ("float32", "float16", "uint16")
"""Types every tool has a name for; uint16 are the raw bits of bfloat16."""

STORES_OPEN = 8
FLOAT16_OVERFLOWS_AT = 65520  # halfway between float16's largest number and the next: rounds to infinity


def library(name: str, extra: str = "interop") -> Any:
    """An optional library, imported where it is used.

    Raises:
        DependencyMissing: It is not installed; the message names the extra that brings it.
    """
    return optional(name, pip=f"'lrh-ray[{extra}]'")


def as_store(store: Store | Location, sites: tuple[str, ...] = (), missing: Missing = "error") -> Store:
    """A store that has these sites, opened if it is given by its place.

    Raises:
        SiteError: A site it does not have.
        StoreIncomplete: Blocks are missing, and `missing` is not "skip".
    """
    source = store if isinstance(store, Store) else open_store(store)
    for site in sites:
        if site not in source.sites:
            raise SiteError(f"This store has no site {site!r}. It has: {', '.join(source.sites)}.")
    if missing == "error" and source.missing_blocks:
        raise StoreIncomplete(
            f"{len(source.missing_blocks)} of {source.plan.num_blocks} blocks of {source.location!r} are missing, the "
            f"first is block {source.missing_blocks[0]}. Repeat the command that writes it, or pass missing='skip'."
        )
    return source


def places_of(store: Store) -> tuple[str, ...]:
    """Where another process on this machine, or on a shared file system, finds the store; one place per joined part."""
    return tuple(
        place if "://" in place else str(Path(place).resolve())
        for place in (part.objects.location for part in store.parts)
    )


@lru_cache(maxsize=STORES_OPEN)
def opened(places: tuple[str, ...], root: str) -> Store:
    """The store at its places, opened once per process and content.

    Raises:
        StoreConflict: It does not have this content any more.
    """
    store = open_store(places)
    if store.root != root:
        raise StoreConflict(
            f"The store {', '.join(places)} has root {store.root}; this was made from root {root}. Open it again."
        )
    return store


def check_dtype(store: Store, dtype: str, allowed: tuple[str, ...] = (*DTYPES, "uint16")) -> np.dtype:
    """The NumPy type named `dtype`.

    Raises:
        ConfigError: This tool has no such type.
        StoreConflict: Bits are asked of a store that is not bfloat16.
    """
    if dtype not in allowed:
        raise ConfigError(f"No data type {dtype!r} here. Choose one of {', '.join(allowed)}; float32 is always exact.")
    if dtype != "uint16":
        native: np.dtype = DTYPES[dtype]
        return native
    if store.plan.dtype != "bfloat16":
        raise StoreConflict(
            f"uint16 are the bits of bfloat16, and {store.location!r} holds {store.plan.dtype}. Ask for float32."
        )
    return np.dtype(np.uint16)


def cast_rows(rows: Rows, dtype: str) -> Rows:
    """Rows in another type: float32 is exact, uint16 are the bits, float16 is refused where it would overflow.

    Raises:
        StoreConflict: Values that float16 cannot hold; they are counted.
    """
    if dtype == "uint16":
        if rows.dtype != DTYPES["bfloat16"]:
            raise StoreConflict(f"uint16 are the bits of bfloat16, and rows of this site are {rows.dtype}.")
        return rows.view(np.uint16)
    target = DTYPES[dtype]
    if target == np.float16 and rows.dtype != target:
        over = int((np.abs(rows.astype(np.float32)) >= FLOAT16_OVERFLOWS_AT).sum())
        if over:
            raise StoreConflict(f"{over} values exceed float16's largest number, 65504. Ask for float32.")
    return rows.astype(target, copy=False)


def bits_as_float32(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 bits, exactly; for rows that came through a tool as uint16."""
    return np.asarray(bits.astype(np.uint16, copy=False).view(ml_dtypes.bfloat16).astype(np.float32))


def open_dask(store: Store | Location, site: str, *, dtype: str = "float32", missing: Missing = "error") -> Any:
    """A site as a lazy dask array [rows, feature], one chunk per committed block, without padding rows.

    Raises:
        DependencyMissing: dask is not installed.
        SiteError: The store has no such site.
        StoreIncomplete: Blocks are missing, and `missing` is not "skip".
    """
    source = as_store(store, (site,), missing)
    kind = check_dtype(source, dtype)
    return _lazy(source, partial(_read_rows, site=site, dtype=dtype), kind, (source.plan.site(site).width,))


def _lazy(store: Store, read: Callable[[Store, int], np.ndarray], dtype: np.dtype, rest: tuple[int, ...]) -> Any:
    """`read` of every committed block, one after the other along the first axis."""
    da, base = library("dask.array"), library("dask.base")
    chunks = (tuple(int(store.plan.valid_rows[block]) for block in sorted(store.commits)), *((n,) for n in rest))
    return da.map_blocks(
        _chunk,
        chunks=chunks,
        dtype=dtype,
        meta=np.empty((0,) * len(chunks), dtype),
        name=f"lrh-{base.tokenize(store.root, read, chunks)}",
        places=places_of(store),
        root=store.root,
        read=read,
    )


def _chunk(
    places: tuple[str, ...],
    root: str,
    read: Callable[[Store, int], np.ndarray],
    block_id: tuple[int, ...] | None = None,
) -> np.ndarray:
    store = opened(places, root)
    return read(store, sorted(store.commits)[block_id[0] if block_id else 0])


def _read_rows(store: Store, block: int, site: str, dtype: str) -> np.ndarray:
    return cast_rows(store.block_rows(site, block), dtype)


def _read_key(store: Store, block: int, name: str) -> np.ndarray:
    return np.asarray(getattr(store.keys(block), name))


def _read_documents(store: Store, block: int, width: int) -> np.ndarray:
    sequences = store.plan.sequences_of_block(block)
    ids = np.array(store.document_ids[sequences.start : sequences.stop], dtype=f"<U{width}")
    return np.asarray(ids[store.keys(block).doc - sequences.start])


def open_xarray(store: Store | Location, site: str, *, dtype: str = "float32", missing: Missing = "error") -> Any:
    """A site as a lazy xarray.DataArray: dims (token, feature), coords token_id, position, document on `token`.

    Rows and coordinates are dask arrays of one chunk per block; only the documents' ids are read at once.

    Raises:
        DependencyMissing: xarray or dask are not installed.
    """
    xr = library("xarray")
    source = as_store(store, (site,), missing)
    longest = max(map(len, source.document_ids), default=1)
    coords = {
        name: ("token", _lazy(source, partial(_read_key, name=name), np.dtype(np.int32), ()))
        for name in ("token_id", "position")
    }
    documents = _lazy(source, partial(_read_documents, width=longest), np.dtype(f"<U{longest}"), ())
    return xr.DataArray(
        open_dask(source, site, dtype=dtype, missing=missing),
        dims=("token", "feature"),
        coords={**coords, "document": ("token", documents)},
        name=site,
    )
