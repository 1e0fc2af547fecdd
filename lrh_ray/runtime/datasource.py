"""A store as a Ray data set: blocks of the store become read tasks, rows become Arrow tables with tensor columns.

`ray.data.read_zarr` reads Zarr v2 only, and knows neither padding nor commits. Here a read task is a group of blocks of
the store; it opens the store where it runs, and yields one Arrow table per block. What travels to a task is the store's
place, its root digest and block numbers, so the store must stand where every node can read it.

    data = read_store("runs/demo", ["resid.15"], seed=0)          # lazy
    data.map_batches(probe, batch_size=4096).materialize()

Columns: one fixed-shape tensor column per site, `token_id`, `position`, `doc`, and `index`, the global row in the
store. Blocks come in stored order, or permuted by `seed` (a pure function of root digest and seed). Ray Data returns
them in that order only under `DataContext.get_current().execution_options.preserve_order = True`.

What can go wrong: Arrow has no bfloat16, so it is refused (`ConfigError`): float32 is exact, uint16 are the raw bits; a
store that changed since it was opened is a `StoreConflict` on the worker.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.extensions import ArrowTensorArray

from lrh_ray.loads.arrays import PORTABLE, as_store, cast_rows, check_dtype, opened, places_of
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store

KEY_COLUMNS = ("token_id", "position", "doc", "index")
KEY_BYTES = 3 * 4 + 8


class StoreDatasource(Datasource):
    """Reads a complete store; holds numbers and names, never an open store."""

    def __init__(self, store: Store | Location, sites: Sequence[str] | None, dtype: str, seed: int | None) -> None:
        """Check what is asked for.

        Raises:
            ConfigError: A data type Arrow has no name for.
            SiteError: A site the store does not have.
            StoreIncomplete: Blocks are missing.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # Ray is typed in part
        source = as_store(store, tuple(sites or ()))
        self._sites = tuple(sites or source.sites)
        self._places, self._root, self._dtype = places_of(source), source.root, dtype
        width = sum(source.plan.site(site).width for site in self._sites)
        self._row_bytes = width * check_dtype(source, dtype, PORTABLE).itemsize + KEY_BYTES
        self._rows_of_block = tuple(int(rows) for rows in source.plan.valid_rows)
        self._blocks = tuple(block_order(source.root, source.plan.num_blocks, seed))

    def get_name(self) -> str:
        return "Store"

    def estimate_inmemory_data_size(self) -> int:
        return sum(self._rows_of_block) * self._row_bytes

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002  # part of Ray's interface
    ) -> list[Any]:  # of ReadTask, whose base class run-time checkers reject
        groups = [group.tolist() for group in np.array_split(np.array(self._blocks), max(1, parallelism)) if len(group)]
        return [self._task(tuple(group), per_task_row_limit) for group in groups]

    def _task(self, blocks: tuple[int, ...], row_limit: int | None) -> Any:
        num_rows = sum(self._rows_of_block[block] for block in blocks)
        metadata = BlockMetadata(
            num_rows=num_rows, size_bytes=num_rows * self._row_bytes, exec_stats=None, input_files=self._places
        )
        read = partial(read_tables, self._places, self._root, self._sites, self._dtype, blocks)
        return ReadTask(read, metadata, per_task_row_limit=row_limit)


def block_order(root: str, num_blocks: int, seed: int | None) -> list[int]:
    """Blocks in stored order, or permuted: a pure function of the store's root digest and the seed."""
    if seed is None:
        return list(range(num_blocks))
    order: list[int] = np.random.default_rng([int(root[:16], 16), seed]).permutation(num_blocks).tolist()
    return order


def read_tables(
    places: tuple[str, ...], root: str, sites: tuple[str, ...], dtype: str, blocks: tuple[int, ...]
) -> Iterator[pa.Table]:
    """One Arrow table per block; runs on a worker."""
    store = opened(places, root)
    for block in blocks:
        keys = store.keys(block)
        columns: dict[str, Any] = {
            site: ArrowTensorArray.from_numpy(np.ascontiguousarray(cast_rows(store.block_rows(site, block), dtype)))
            for site in sites
        }
        columns.update({name: pa.array(getattr(keys, name)) for name in KEY_COLUMNS})
        yield pa.table(columns)


def read_store(
    store: Store | Location,
    sites: Sequence[str] | None = None,
    *,
    dtype: str = "float32",
    seed: int | None = None,
    num_tasks: int | None = None,
) -> ray.data.Dataset:
    """A store as a lazy Ray data set; connect to a cluster first (`lrh_ray.runtime.cluster.connected`).

    Args:
        store: A complete store or its place, readable from every node.
        sites: Sites to read; all by default.
        dtype: float32 (exact), float16 (refused where it overflows) or uint16 (bits of bfloat16).
        seed: Permutes the blocks; None keeps the stored order.
        num_tasks: Read tasks to make; Ray chooses by default. There are never more than blocks.

    Raises:
        ConfigError: A data type Arrow has no name for.
        SiteError: A site the store does not have.
        StoreIncomplete: Blocks are missing.
    """
    source = StoreDatasource(store, sites, dtype, seed)
    data: ray.data.Dataset = ray.data.read_datasource(source, override_num_blocks=num_tasks)
    return data
