"""The Zarr tree of a store: created once by the driver from the plan, before any row exists.

zarr-python writes all metadata and the small arrays (token ids, positions, documents); the activations' shards are
written by `lrh_ray.store.writer` at the places this metadata declares. Nothing foreign stands inside `data.zarr`, so
zarr, xarray, dask and TensorStore read it without this package (see `lrh_ray.store.views` for bfloat16).
"""

import errno
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.dtype import VariableLengthUTF8

from lrh_ray.durable import sync_folder, sync_tree
from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Plain, TokenBatch
from lrh_ray.store.bfloat16 import BFloat16
from lrh_ray.store.plan import DTYPES, FORMAT_VERSION, INDEX_CONVENTION, Plan

PLAN_ARRAYS = ("token_id", "position", "doc", "char_start", "char_end")
PLAN_CHUNK_BYTES = 4 << 20


def create_tree(
    path: Path, plan: Plan, tokens: TokenBatch, text_digests: np.ndarray, provenance: Mapping[str, Plain]
) -> None:
    """Write metadata and the arrays of the plan beside the store, then publish them by one rename.

    Nothing is ever rewritten in place: a second driver may start while workers of the first read these arrays.

    Args:
        path: Folder of the Zarr group.
        plan: The plan whose shapes are declared.
        tokens: The corpus, in source order.
        text_digests: [documents, 32] uint8 in stored order, SHA-256 of each document's text.
        provenance: Plain facts for people, stored as an attribute.
    """
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        _build(aside, plan, tokens, text_digests, provenance)
        sync_tree(aside)
        aside.rename(path)  # refused when another driver of this plan was first: its tree is the same
        sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _build(
    path: Path, plan: Plan, tokens: TokenBatch, text_digests: np.ndarray, provenance: Mapping[str, Plain]
) -> None:
    root = zarr.create_group(path)
    root.attrs["lrh"] = {
        "version": FORMAT_VERSION,
        "plan": plan.digest,
        "provenance": dict(provenance),
        "sites": [site.name for site in plan.sites],
        "index_convention": INDEX_CONVENTION,
    }
    for name, values in row_arrays(plan, tokens).items():
        _array(root, name, values, ("token",), _plan_chunk(plan))
    ids = np.array([tokens.document_ids[source] for source in plan.source], dtype=object)
    _array(root, "docs/id", ids, ("doc",))
    _array(root, "docs/start", plan.starts.astype(np.int64), ("doc",))
    _array(root, "docs/length", plan.lengths.astype(np.int32), ("doc",))
    _array(root, "docs/sha256", text_digests, ("doc", "byte"))
    for site in plan.sites:
        _activations(root, plan, site.name, site.width)


def row_arrays(plan: Plan, tokens: TokenBatch) -> dict[str, np.ndarray]:
    """[rows] int32 arrays in stored order; padding rows carry doc = -1 and zeros elsewhere."""
    arrays = {name: np.zeros(plan.num_rows, dtype=np.int32) for name in PLAN_ARRAYS}
    arrays["doc"][:] = -1
    columns = {
        "token_id": tokens.token_ids,
        "position": tokens.positions,
        "char_start": tokens.char_start,
        "char_end": tokens.char_end,
    }
    for stored, (source, start, length) in enumerate(zip(plan.source, plan.starts, plan.lengths, strict=True)):
        rows = slice(start, start + length)
        first = tokens.starts[source]
        arrays["doc"][rows] = stored
        for name, column in columns.items():
            arrays[name][rows] = column[first : first + length]
    return arrays


def _plan_chunk(plan: Plan) -> int:
    blocks = max(1, PLAN_CHUNK_BYTES // 4 // plan.rows_per_block)
    return min(blocks, plan.num_blocks) * plan.rows_per_block


def _array(root: zarr.Group, name: str, values: np.ndarray, dims: tuple[str, ...], chunk: int | None = None) -> None:
    dtype: Any = VariableLengthUTF8() if values.dtype == object else values.dtype
    array = root.create_array(
        name,
        shape=values.shape,
        dtype=dtype,
        chunks=(chunk or max(1, values.shape[0]), *values.shape[1:]),
        compressors=None,
        fill_value="" if values.dtype == object else values.dtype.type(),
        dimension_names=dims,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _activations(root: zarr.Group, plan: Plan, site: str, width: int) -> None:
    codec = ShardingCodec(
        chunk_shape=(plan.chunk_rows, width),
        codecs=[BytesCodec(), Crc32cCodec()],
        index_codecs=[BytesCodec(), Crc32cCodec()],
        index_location="end",
    )
    name = f"acts/{site}"
    dtype: Any = BFloat16() if plan.dtype == "bfloat16" else DTYPES[plan.dtype]
    root.create_array(
        name,
        shape=(plan.num_rows, width),
        dtype=dtype,
        chunks=(plan.rows_per_block, width),
        serializer=codec,
        filters=None,
        compressors=None,
        fill_value=0,
        dimension_names=("token", "feature"),
    )


def shard_path(root: Path, site: str, block: int) -> Path:
    return root / "data.zarr" / "acts" / site / "c" / str(block) / "0"


def add_arrays(path: Path, arrays: Mapping[str, tuple[np.ndarray, tuple[str, ...]]]) -> None:
    """Add small arrays (statistics) and consolidate the metadata."""
    root = zarr.open_group(path, mode="a", use_consolidated=False)
    for name, (values, dims) in arrays.items():
        standing = root.get(name)
        if isinstance(standing, zarr.Array):
            standing[...] = values  # an interrupted or concurrent seal: the same values, chunk by chunk
        else:
            _array(root, name, values, dims)
    with warnings.catch_warnings():
        # Consolidated metadata is not in the Zarr v3 specification yet; readers that do not know it ignore it.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(path)
    for folder in {name.split("/")[0] for name in arrays}:
        sync_tree(path / folder)
    sync_folder(path)


def read_arrays(path: Path, names: tuple[str, ...], rows: slice = slice(None)) -> Iterator[np.ndarray]:
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    for name in names:
        array = root[name]
        if not isinstance(array, zarr.Array):
            raise StoreCorrupt(f"{path / name} is a group where an array belongs.")
        yield np.asarray(array[rows])
