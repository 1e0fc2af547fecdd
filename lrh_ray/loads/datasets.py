"""A store as a data set of the library `datasets`: streamed row by row, or as memory-mapped Arrow files.

Neither way holds the store in memory. Streaming copies nothing and reads block after block; exporting writes one Arrow
file per block into a folder, which `datasets` then maps, with random access.

    rows = stream_dataset("runs/demo", ["resid.15"])                    # IterableDataset, one shard per block
    table = export_dataset("runs/demo", "runs/demo-arrow", ["resid.15"])     # Dataset on Arrow files
    table.with_format("numpy")[:4]["resid.15"]

Columns: one per site (fixed length), `document`, `position`, `token_id`, and `index`, the global row in the store.
Features are typed. Arrow has no bfloat16: float32 is exact, uint16 are the raw bits (`bits_as_float32` reads them).

What can go wrong: `datasets` is missing (`DependencyMissing`); the folder holds the export of another store
(`StoreConflict`). A killed export is finished by the same call: files that stand are kept.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lrh_ray.digests import canonical_json
from lrh_ray.durable import disk_errors, make_folder
from lrh_ray.errors import StoreConflict
from lrh_ray.loads.arrays import PORTABLE, as_store, cast_rows, check_dtype, library, opened, places_of
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store

SOURCE = "source.json"


def stream_dataset(
    store: Store | Location, sites: Sequence[str] | None = None, *, dtype: str = "float32", seed: int | None = None
) -> Any:
    """A `datasets.IterableDataset` over all rows; blocks in stored order, or permuted by `seed`.

    It has one shard per block, so it splits over workers and nodes; `.shuffle(buffer_size=...)` mixes rows further.

    Raises:
        DependencyMissing: datasets is not installed.
    """
    datasets = library("datasets")
    source, names = _checked(store, sites, dtype)
    blocks = list(range(source.plan.num_blocks))
    if seed is not None:
        blocks = np.random.default_rng([int(source.root[:16], 16), seed]).permutation(blocks).tolist()
    arguments = {"blocks": blocks, "places": places_of(source), "root": source.root, "dtype": dtype}
    return datasets.IterableDataset.from_generator(
        _rows, features=_features(datasets, source, names, dtype), gen_kwargs={**arguments, "sites": tuple(names)}
    )


def export_dataset(
    store: Store | Location,
    folder: str | Path,
    sites: Sequence[str] | None = None,
    *,
    dtype: str = "float32",
) -> Any:
    """A memory-mapped `datasets.Dataset` over all rows in stored order; its Arrow files are written to `folder`.

    Memory: one block. Disk: the rows once more. The folder belongs to this export; repeating the call maps it again.

    Raises:
        DependencyMissing: datasets is not installed.
        StoreConflict: The folder holds something else.
        StoreFull: No space.
    """
    datasets = library("datasets")
    source, names = _checked(store, sites, dtype)
    target, features = Path(folder), _features(datasets, source, names, dtype)
    _claim(target, {"root": source.root, "sites": names, "dtype": dtype})
    parts = []
    for block in range(source.plan.num_blocks):
        path = target / f"{block:08d}.arrow"
        if not path.exists():
            _write_table(path, _table(source, names, dtype, block, features.arrow_schema))
        parts.append(datasets.Dataset.from_file(str(path), info=datasets.DatasetInfo(features=features)))
    return datasets.concatenate_datasets(parts)


def _checked(store: Store | Location, sites: Sequence[str] | None, dtype: str) -> tuple[Store, list[str]]:
    source = as_store(store, tuple(sites or ()))
    check_dtype(source, dtype, PORTABLE)
    return source, list(sites or source.sites)


def _features(datasets: Any, store: Store, sites: Sequence[str], dtype: str) -> Any:
    value = datasets.Value
    columns = {site: datasets.List(value(dtype), length=store.plan.site(site).width) for site in sites}
    keys = {"document": value("string"), "position": value("int32"), "token_id": value("int32")}
    return datasets.Features({**columns, **keys, "index": value("int64")})


def _rows(
    blocks: list[int], places: tuple[str, ...], root: str, dtype: str, sites: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    store = opened(places, root)
    for block in blocks:
        keys = store.keys(block)
        columns = {site: cast_rows(store.block_rows(site, block), dtype) for site in sites}
        for row, (doc, position, token, index) in enumerate(
            zip(keys.doc.tolist(), keys.position.tolist(), keys.token_id.tolist(), keys.index.tolist(), strict=True)
        ):
            found: dict[str, Any] = {site: rows[row] for site, rows in columns.items()}
            facts = {"document": store.document_ids[doc], "position": position, "token_id": token, "index": index}
            yield {**found, **facts}


def _table(store: Store, sites: Sequence[str], dtype: str, block: int, schema: pa.Schema) -> pa.Table:
    keys = store.keys(block)
    columns: dict[str, Any] = {}
    for site in sites:
        rows = np.ascontiguousarray(cast_rows(store.block_rows(site, block), dtype))
        columns[site] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    columns["document"] = pa.array([store.document_ids[doc] for doc in keys.doc.tolist()], pa.string())
    for name in ("position", "token_id", "index"):
        columns[name] = pa.array(getattr(keys, name))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _write_table(path: Path, table: pa.Table) -> None:
    with _beside(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file that gets its name when it is whole, so that a killed export leaves no half of one."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with disk_errors(str(path)):
            yield aside
            aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def _claim(folder: Path, export: dict[str, Any]) -> None:
    """Make the folder the place of this export, or find that it is."""
    standing = folder / SOURCE
    with disk_errors(str(folder)):
        make_folder(folder)
        if not any(not path.name.startswith(f".{SOURCE}") for path in folder.iterdir()):
            with _beside(standing) as aside:
                aside.write_bytes(canonical_json(export))
    if not standing.exists() or json.loads(standing.read_bytes()) != export:
        raise StoreConflict(
            f"{str(folder)!r} holds something else than this export (root {export['root']}, sites "
            f"{', '.join(export['sites'])}, {export['dtype']}). Choose another folder, or remove that one."
        )
