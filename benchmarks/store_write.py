"""Writing, against a raw `write()` of the same bytes.

- streamed: what `BlockWriter` does to rows (copy, statistics, BLAKE3, crc32c, index) without fdatasync and commit, in
  memory (tmpfs), where nothing hides behind a slow disk;
- durable: the whole protocol on a real disk, against raw writes with one fdatasync for each file.

Both sides take rows from the same array and write new files; the files are removed outside of the timing.
"""

import os
from functools import partial
from pathlib import Path
from shutil import rmtree

import numpy as np
import zarr
from store_pairs import Quiet, Record, Side, measure
from store_rows import BFLOAT16, DOCUMENT_ROWS, SITE, Data, scratch
from zarr.codecs import Crc32cCodec

from lrh_ray.store.chunk_workers import ChunkWorkers
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.shard_writer import ShardWriter, chunk_buffers
from lrh_ray.store.writer import DEPTH, THREADS

WRITE_TARGET, DURABLE_TARGET = 0.75, 0.70


def raw_write(data: Data, folder: Path, *, durable: bool = False) -> None:
    """Each block's bytes into a file of its own, a chunk at a time."""
    step = data.plan.shard(SITE).chunk_bytes
    for block in range(data.num_blocks):
        pending = data.block(block).view(np.uint8).reshape(-1).data
        descriptor = os.open(folder / f"raw{block}", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        while pending:
            pending = pending[os.write(descriptor, pending[:step]) :]
        if durable:
            os.fdatasync(descriptor)
        os.close(descriptor)


def stream_shards(data: Data, folder: Path) -> None:
    """What `BlockWriter` does until the commit, without fdatasync."""
    for block in range(data.num_blocks):
        descriptor = os.open(folder / f"shard{block}", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        workers = ChunkWorkers(threads=THREADS, depth=DEPTH)
        shard = ShardWriter(
            descriptor,
            SITE,
            data.plan.shard(SITE),
            dtype=BFLOAT16,
            width=data.dim,
            valid_rows=data.rows_per_block,
            codec=open_codec("none", BFLOAT16),
            compressed=False,
            workers=workers,
            buffers=chunk_buffers(data.plan.chunk_rows, data.dim, BFLOAT16),
        )
        rows = data.block(block)
        for first in range(0, len(rows), DOCUMENT_ROWS):
            shard.write(first, rows[first : first + DOCUMENT_ROWS])
        workers.drain()
        shard.finish()
        shard.statistics()
        workers.close()
        os.close(descriptor)


def zarr_write(data: Data, folder: Path) -> None:
    """The same shards by zarr-python: inner chunks with crc32c, no compression, a shard at a time."""
    array = zarr.create_array(
        folder / "peer.zarr",
        shape=(data.rows, data.dim),
        dtype="uint16",
        chunks=(data.plan.chunk_rows, data.dim),
        shards=(data.rows_per_block, data.dim),
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    for block in range(data.num_blocks):
        rows = slice(block * data.rows_per_block, (block + 1) * data.rows_per_block)
        array[rows] = data.block(block).view(np.uint16)


def empty(folder: Path) -> None:
    for entry in folder.iterdir():
        rmtree(entry) if entry.is_dir() else entry.unlink()


def write_measures(data: Data, memory: Path, *, pairs: int, quiet: Quiet) -> list[Record]:
    """Streamed shards against raw writes, and against zarr-python."""
    with scratch(memory) as folder:
        check_shards(data, folder)
        ours, raw, peer = (
            Side(name=name, run=partial(run, data, folder), after=partial(empty, folder))
            for name, run in (
                ("shard writer", stream_shards),
                ("raw write", raw_write),
                ("zarr-python, default pipeline", zarr_write),
            )
        )
        return [
            {"measure": "write", "target": WRITE_TARGET, **measure(raw, ours, pairs=pairs, quiet=quiet)},
            {
                "measure": "peer write",
                "target": None,
                "limit_verifies": True,
                **measure(peer, ours, pairs=pairs, quiet=quiet),
            },
        ]


def check_shards(data: Data, folder: Path) -> None:
    """Each timed writer writes the source's bytes."""
    layout = data.plan.shard(SITE)
    stream_shards(data, folder)
    for block in range(data.num_blocks):
        stored = np.fromfile(folder / f"shard{block}", np.uint8)[: layout.index_offset]
        chunks = stored.reshape(layout.num_chunks, -1)[:, : layout.chunk_bytes]
        if not np.array_equal(chunks.reshape(-1), data.block(block).view(np.uint8).reshape(-1)):
            raise RuntimeError(f"the streamed shard {block} does not hold the rows")
    zarr_write(data, folder)
    if not np.array_equal(zarr.open_array(folder / "peer.zarr", mode="r")[...], data.source.view(np.uint16)):
        raise RuntimeError("the shards of zarr-python do not hold the rows")
    empty(folder)


def durable_measures(data: Data, disk: Path, *, pairs: int, quiet: Quiet) -> list[Record]:
    """The whole protocol, from the first row to the published commit, against raw writes with fdatasync."""
    with scratch(disk) as folder:

        def prepare() -> None:
            data.create(folder / "store")
            os.sync()

        def tidy() -> None:
            empty(folder)
            os.sync()  # or the next run would pay for it

        raw = Side(name="raw write + fdatasync", run=partial(raw_write, data, folder, durable=True), after=tidy)
        ours = Side(
            name="BlockWriter, whole protocol",
            run=partial(data.commit_blocks, folder / "store"),
            before=prepare,
            after=tidy,
        )
        record = measure(raw, ours, pairs=pairs, quiet=quiet)
        return [{"measure": "durable", "target": DURABLE_TARGET, **record}]
