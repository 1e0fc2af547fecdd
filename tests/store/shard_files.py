"""One shard as a plain file, written by the ShardWriter."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.chunk_workers import ChunkWorkers, Pool
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.commit_records import StoredObject
from lrh_ray.store.shard_writer import ShardWriter
from lrh_ray.store.shards import ShardLayout
from lrh_ray.store.statistics import SiteStatistics


@contextlib.contextmanager
def open_shard(path: Path, layout: ShardLayout, dtype: np.dtype, valid_rows: int, compression: str = "none", threads=2):
    """A writer of a new file, its workers and its buffers."""
    width = layout.row_bytes // dtype.itemsize
    workers = ChunkWorkers(threads=threads, depth=2)
    buffers = Pool(partial(aligned_empty, (layout.chunk_rows, width), dtype))
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield (
            ShardWriter(
                file,
                path.name,
                layout,
                dtype=dtype,
                width=width,
                valid_rows=valid_rows,
                codec=open_codec(compression, dtype),
                compressed=compression != "none",
                workers=workers,
                buffers=buffers,
            ),
            workers,
            buffers,
        )
    finally:
        workers.close()
        os.close(file)


def write_shard(
    path: Path,
    layout: ShardLayout,
    rows: np.ndarray,
    pieces: Iterator[slice] | list[slice] | None = None,
    compression: str = "none",
) -> tuple[StoredObject, SiteStatistics]:
    """Write all valid rows, in the pieces and the order given."""
    with open_shard(path, layout, rows.dtype, len(rows), compression) as (shard, workers, _):
        for piece in pieces or [slice(0, len(rows))]:
            shard.write(piece.start, rows[piece])
        workers.drain()
        return shard.finish(), shard.statistics()
