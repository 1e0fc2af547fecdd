"""The Zarr tree of a store: all of it is declared once, from the plan, before any row exists.

zarr-python writes all metadata and the small arrays (token ids, positions, documents); the activations' shards are
written by `lrh_ray.store.writer` at the places this metadata declares, the statistics by the seal. Metadata is
consolidated from the start and never rewritten, except by `lrh_ray.store.views`. Nothing foreign stands inside
`data.zarr`, so zarr, xarray, dask and TensorStore read it without this package.

Our own reader takes geometry from the plan alone and uses the metadata only to refuse a store whose metadata says
something else (`check_metadata`): other tools would read other rows from it, or allocate what it declares.
"""

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.dtype import VariableLengthUTF8

from lrh_ray.errors import StoreCorrupt
from lrh_ray.layouts import RowIndex
from lrh_ray.records import Plain, SiteSpec, TokenBatch
from lrh_ray.store.bfloat16 import BFloat16
from lrh_ray.store.codecs import declared_dtype, zarr_codecs
from lrh_ray.store.objects import Objects, put_tree
from lrh_ray.store.plan import FORMAT_VERSION, INDEX_CONVENTION, Plan
from lrh_ray.store.plan_shape import DTYPES

TREE = "data.zarr"
PLAN_ARRAYS = ("token_id", "position", "doc", "char_start", "char_end")
STATISTICS_ARRAYS = ("count", "mean", "m2", "absmax")
PLAN_CHUNK_BYTES = 4 << 20
MAX_METADATA_BYTES = 64 << 20


def create_tree(
    objects: Objects, plan: Plan, tokens: TokenBatch, text_digests: np.ndarray, provenance: Mapping[str, Plain]
) -> None:
    """Write metadata and the arrays of the plan; any number of drivers of one plan write the same bytes.

    Args:
        objects: The store.
        plan: The plan whose shapes are declared.
        tokens: The corpus, in source order.
        text_digests: [documents, 32] uint8 in stored order, SHA-256 of each document's text.
        provenance: Plain facts for people, stored as an attribute.
    """
    with tempfile.TemporaryDirectory(prefix="lrh-tree-") as folder:
        scratch = Path(folder) / TREE
        root = zarr.create_group(scratch)
        root.attrs["lrh"] = _attributes(plan, provenance)
        for name, values in row_arrays(plan, tokens).items():
            _declare(root, name, values.shape, values.dtype, ("token",), plan_chunk_rows(plan))[...] = values
        _write_documents(root, plan, tokens, text_digests)
        _declare_statistics(root, plan)
        for site in plan.sites:
            _declare_activations(root, plan, site.name, site.width)
        _consolidate(scratch)
        put_tree(objects, TREE, scratch)


def _attributes(plan: Plan, provenance: Mapping[str, Plain]) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "plan": plan.digest,
        "provenance": dict(provenance),
        "sites": [site.name for site in plan.sites],
        "index_convention": INDEX_CONVENTION,
    }


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


def plan_chunk_rows(plan: Plan) -> int:
    """Rows of one chunk of the arrays that have one value per row."""
    blocks = max(1, PLAN_CHUNK_BYTES // 4 // plan.rows_per_block)
    return min(blocks, plan.num_blocks) * plan.rows_per_block


def _declare(
    root: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    chunk: int | None = None,
    fill: Any = 0,
) -> zarr.Array[Any]:
    return root.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(chunk or max(1, shape[0]), *shape[1:]),
        compressors=None,
        fill_value=fill,
        dimension_names=dims,
        config={"write_empty_chunks": True},
    )


def _write_documents(root: zarr.Group, plan: Plan, tokens: TokenBatch, text_digests: np.ndarray) -> None:
    ids = np.array([tokens.document_ids[source] for source in plan.source], dtype=object)
    _declare(root, "docs/id", ids.shape, VariableLengthUTF8(), ("doc",), fill="")[...] = ids
    for name, values in (
        ("docs/start", plan.starts.astype(np.int64)),
        ("docs/length", plan.lengths.astype(np.int32)),
    ):
        _declare(root, name, values.shape, values.dtype, ("doc",))[...] = values
    _declare(root, "docs/sha256", text_digests.shape, np.dtype(np.uint8), ("doc", "byte"))[...] = text_digests


def _declare_statistics(root: zarr.Group, plan: Plan) -> None:
    """Declared without values: until the seal a reader of these arrays finds NaN, and 0 rows counted."""
    for site in plan.sites:
        _declare(root, f"stats/{site.name}/count", (1,), np.dtype(np.int64), ("one",))
        for name in STATISTICS_ARRAYS[1:]:
            _declare(root, f"stats/{site.name}/{name}", (site.width,), np.dtype(np.float64), ("feature",), fill=np.nan)
        rows, chunk = (plan.num_rows,), plan_chunk_rows(plan)
        _declare(root, f"norms/{site.name}", rows, np.dtype(np.float32), ("token",), chunk, fill=np.float32("nan"))


def _declare_activations(root: zarr.Group, plan: Plan, site: str, width: int) -> None:
    own = plan.dtype_of(site)
    declared = declared_dtype(plan.compression, own)
    dtype: Any = BFloat16() if declared == DTYPES["bfloat16"] else declared
    root.create_array(
        f"acts/{site}",
        shape=(plan.num_rows, width),
        dtype=dtype,
        chunks=(plan.rows_per_block, width),
        serializer=ShardingCodec(
            chunk_shape=(plan.chunk_rows, width),
            codecs=[*zarr_codecs(plan.compression, own), Crc32cCodec()],
            index_codecs=[BytesCodec(), Crc32cCodec()],
            index_location="end",
        ),
        filters=None,
        compressors=None,
        fill_value=0,
        dimension_names=("token", "feature"),
    )


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is not in the Zarr v3 specification yet; readers that do not know it ignore it.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(folder)
    for path in folder.rglob("zarr.json"):
        path.write_bytes(metadata_bytes(json.loads(path.read_bytes())))


def metadata_bytes(metadata: Mapping[str, Any]) -> bytes:
    """The one way in which metadata is written, so that its digest is known before it is."""
    return json.dumps(metadata, indent=2, sort_keys=True).encode()


def read_rows(objects: Objects, plan: Plan, name: str, rows: slice, dtype: Any = "<i4") -> np.ndarray:
    """Rows [start, stop) of a one-dimensional array of the tree that has one value of four bytes per row.

    Raises:
        StoreCorrupt: A chunk is missing or short.
    """
    size = plan_chunk_rows(plan)
    parts = []
    for chunk in range(rows.start // size, -(-rows.stop // size)):
        first, last = max(rows.start, chunk * size), min(rows.stop, (chunk + 1) * size)
        key = f"{TREE}/{name}/c/{chunk}"
        found = objects.get(key, 4 * (first - chunk * size), 4 * (last - first))
        if found is None or len(found.data) != 4 * (last - first):
            raise StoreCorrupt(f"{key} is missing or too short for rows {first}..{last - 1}. Restore it from a copy.")
        parts.append(np.frombuffer(found.data, dtype=dtype))
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def read_columns(objects: Objects, plan: Plan, names: tuple[str, ...], index: RowIndex) -> list[np.ndarray]:
    """Columns such as `token_id` at ascending global rows."""
    if not len(index):
        return [np.empty(0, dtype=np.int32) for _ in names]
    span = slice(int(index[0]), int(index[-1]) + 1)
    return [read_rows(objects, plan, name, span)[index - span.start] for name in names]


def statistics_objects(plan: Plan, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Chunk keys and bytes of arrays that the tree declares and the seal fills."""
    for name, values in arrays.items():
        size = plan_chunk_rows(plan) if name.startswith("norms/") else len(values)
        for chunk, first in enumerate(range(0, len(values), size)):
            piece = np.zeros(size, values.dtype)
            piece[: len(values) - first] = values[first : first + size]
            yield f"{TREE}/{name}/c/{chunk}", piece.astype(values.dtype.newbyteorder("<")).tobytes()


def check_metadata(objects: Objects, plan: Plan) -> None:
    """Refuse a store whose Zarr metadata describes other arrays than its plan.

    Raises:
        StoreCorrupt: Another shape, chunk, data type or codec; or no metadata.
    """
    found = objects.get(f"{TREE}/zarr.json", 0, MAX_METADATA_BYTES)
    try:
        entries = json.loads(b"{}" if found is None else found.data)["consolidated_metadata"]["metadata"]
        described = {site.name: _described(entries[f"acts/{site.name}"]) for site in plan.sites}
        own = {site.name: _described(_read_metadata(objects, f"acts/{site.name}")) for site in plan.sites}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise StoreCorrupt(f"The Zarr metadata of {objects.location!r} cannot be understood: {error!r}.") from error
    for site in plan.sites:
        wanted = _wanted(plan, site)
        for where, facts in (("consolidated", described[site.name]), ("own", own[site.name])):
            wrong = sorted(name for name in wanted if facts[name] not in wanted[name])
            if wrong:
                raise StoreCorrupt(
                    f"The {where} Zarr metadata of site {site.name!r} in {objects.location!r} contradicts the plan in "
                    f"{', '.join(wrong)} ({', '.join(repr(facts[name])[:80] for name in wrong)}). It is not opened."
                )


def _read_metadata(objects: Objects, name: str) -> Any:
    found = objects.get(f"{TREE}/{name}/zarr.json", 0, MAX_METADATA_BYTES)
    return json.loads(b"null" if found is None else found.data)


def _described(metadata: Any) -> dict[str, Any]:
    (sharding,) = metadata["codecs"]
    inner = sharding["configuration"]
    return {
        "shape": list(metadata["shape"]),
        "data type": metadata["data_type"],
        "shard": metadata["chunk_grid"]["configuration"]["chunk_shape"],
        "sharding": sharding["name"],
        "chunk": inner["chunk_shape"],
        "codecs": [codec["name"] for codec in inner["codecs"]],
        "index codecs": [codec["name"] for codec in inner["index_codecs"]],
        "index location": inner.get("index_location", "end"),
    }


def _names(plan: Plan, dtype: np.dtype) -> list[str]:
    """Under which names the element type may stand: bfloat16 has two, of which pcodec knows one."""
    declared = declared_dtype(plan.compression, dtype).name
    return ["bfloat16", "uint16"] if declared == "bfloat16" else [declared]


def _wanted(plan: Plan, site: SiteSpec) -> dict[str, list[Any]]:
    dtype = plan.dtype_of(site.name)
    codecs = [codec.to_dict()["name"] for codec in zarr_codecs(plan.compression, dtype)]
    return {
        "shape": [[plan.num_rows, site.width]],
        "data type": _names(plan, dtype),
        "shard": [[plan.rows_per_block, site.width]],
        "sharding": ["sharding_indexed"],
        "chunk": [[plan.chunk_rows, site.width]],
        "codecs": [[*codecs, "crc32c"]],
        "index codecs": [["bytes", "crc32c"]],
        "index location": ["end"],
    }
