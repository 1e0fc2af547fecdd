"""The shard of one site: rows in any order become chunks, each written once, while the model goes on.

    shard.write(offset, rows)      # copies into a reused buffer; a full chunk goes to a background thread
    workers.drain()
    stored = shard.finish()        # padding, index; what the commit record says about the file
    shard.statistics()

A background thread does everything to a chunk while the cache holds it: statistics, encoding, BLAKE3, crc32c, and
`pwritev`. Uncompressed chunks go to their known places; compressed ones are appended in the order in which they are
finished.

Memory: one buffer per chunk that has begun and is not full, plus one for each that waits for a thread.

What can go wrong: rows written twice, outside the block, of another width or type are `StoreCorrupt` at once, rows that
never came at `finish`. A value that a narrower type cannot hold is counted in `overflow`; whoever commits refuses it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import ml_dtypes
import numpy as np

from lrh_ray.durable import begin_writeback, disk_errors
from lrh_ray.errors import StoreCorrupt
from lrh_ray.layouts import Rows
from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.chunk_workers import ChunkWorkers, Pool
from lrh_ray.store.codecs import Codec, Encoded
from lrh_ray.store.commit_records import StoredObject
from lrh_ray.store.shard_statistics import ShardStatistics
from lrh_ray.store.shards import (
    CRC_BYTES,
    ShardLayout,
    checksum,
    chunk_digest,
    index_crc32c,
    shard_digest,
    shard_index,
)
from lrh_ray.store.statistics import SiteStatistics

BFLOAT16, FLOAT16, FLOAT32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)
INT32 = np.dtype(np.int32)
TAKEN = {
    BFLOAT16: (BFLOAT16, FLOAT32),
    FLOAT16: (FLOAT16, BFLOAT16, FLOAT32),
    FLOAT32: (FLOAT32, BFLOAT16, FLOAT16),
    INT32: (INT32,),
}


@lru_cache(maxsize=16)
def chunk_buffers(chunk_rows: int, width: int, dtype: np.dtype) -> Pool[np.ndarray]:
    """Memory for chunks of one shape, reused from block to block: fresh pages cost half as much as writing them."""
    return Pool(partial(aligned_empty, (chunk_rows, width), dtype))


@dataclass(kw_only=True, slots=True)
class OpenChunk:
    """A chunk some of whose rows have arrived."""

    buffer: np.ndarray
    arrived: np.ndarray
    missing: int


class ShardWriter:
    """Writes one shard into an empty file that the caller owns."""

    def __init__(
        self,
        file: int,
        name: str,
        layout: ShardLayout,
        *,
        dtype: np.dtype,
        width: int,
        valid_rows: int,
        codec: Codec,
        compressed: bool,
        workers: ChunkWorkers,
        buffers: Pool[np.ndarray],
    ) -> None:
        self._file, self._name, self._layout = file, name, layout
        self._dtype, self._width, self._valid_rows = dtype, width, valid_rows
        self._codec, self._compressed, self._workers, self._buffers = codec, compressed, workers, buffers
        self._open: dict[int, OpenChunk] = {}
        self._submitted = np.zeros(layout.num_chunks, dtype=bool)
        self._places = np.zeros((layout.num_chunks, 2), dtype=np.uint64)
        self._digests = [b""] * layout.num_chunks
        self._statistics = ShardStatistics(
            chunk_rows=layout.chunk_rows, width=width, valid_rows=valid_rows, dtype=dtype
        )
        self._end = 0
        self.overflow = 0

    def write(self, offset: int, rows: Rows) -> None:
        """Take rows [offset, offset + len(rows)) of the block; they may be reused after the return.

        Raises:
            StoreCorrupt: Rows outside the block, of another width or type, or that were here before.
            StoreFull: The disk refused an earlier chunk.
        """
        self._check(offset, rows)
        step = self._layout.chunk_rows
        for chunk in range(offset // step, -(-(offset + len(rows)) // step)):
            first, last = max(offset, chunk * step), min(offset + len(rows), (chunk + 1) * step)
            self._fill(chunk, first - chunk * step, rows[first - offset : last - offset])

    def _check(self, offset: int, rows: Rows) -> None:
        if offset < 0 or offset + len(rows) > self._valid_rows or rows.shape[1] != self._width:
            raise StoreCorrupt(
                f"{self._name}: rows {offset}..{offset + len(rows)} of width {rows.shape[1]} do not fit a block of "
                f"{self._valid_rows} rows of width {self._width}."
            )
        if rows.dtype not in TAKEN[self._dtype]:
            raise StoreCorrupt(
                f"{self._name}: rows of {rows.dtype} for a store of {self._dtype}, which takes "
                f"{', '.join(map(str, TAKEN[self._dtype]))}. Convert them in the backend, where the loss is known."
            )

    def _fill(self, chunk: int, first: int, rows: np.ndarray) -> None:
        found = self._open.get(chunk)
        if self._submitted[chunk]:
            raise self._twice(chunk)
        valid = self._valid_in(chunk)
        if found is None:
            buffer = self._buffers.take()
            if len(rows) == valid:  # a whole chunk at once
                self._copy(rows, buffer[:valid])
                self._submit(chunk, buffer)
                return
            found = OpenChunk(buffer=buffer, arrived=np.zeros(valid, dtype=bool), missing=valid)
            self._open[chunk] = found
        here = slice(first, first + len(rows))
        if found.arrived[here].any():
            raise self._twice(chunk)
        self._copy(rows, found.buffer[here])
        found.arrived[here] = True
        found.missing -= len(rows)
        if not found.missing:
            del self._open[chunk]
            self._submit(chunk, found.buffer)

    def _copy(self, rows: np.ndarray, out: np.ndarray) -> None:
        if rows.dtype == out.dtype:
            np.copyto(out, rows)
            return
        with np.errstate(all="ignore"):
            np.copyto(out, rows, casting="unsafe")
        if TAKEN[self._dtype][0] != FLOAT32:  # float32 holds every value of the others
            self.overflow += int(np.count_nonzero(~np.isfinite(out) & np.isfinite(rows)))

    def _twice(self, chunk: int) -> StoreCorrupt:
        return StoreCorrupt(f"{self._name}: rows of chunk {chunk} arrived twice.")

    def _valid_in(self, chunk: int) -> int:
        return min(self._layout.chunk_rows, self._valid_rows - chunk * self._layout.chunk_rows)

    def _submit(self, chunk: int, buffer: np.ndarray) -> None:
        self._submitted[chunk] = True
        self._workers.submit(partial(self._prepare, chunk, buffer))

    def _prepare(self, chunk: int, buffer: np.ndarray) -> Callable[[], None]:
        """Everything but the write, which is returned."""
        valid = self._valid_in(chunk)
        buffer[valid:] = 0
        self._statistics.add(chunk, buffer[:valid])
        encoded = self._codec.encode(buffer)
        digest, crc = chunk_digest(encoded), checksum(encoded)

        def write() -> None:
            self._put(chunk, encoded, digest, crc)
            self._buffers.give(buffer)

        return write

    def _put(self, chunk: int, encoded: Encoded, digest: bytes, crc: bytes) -> None:
        """Write a chunk; one at a time."""
        num_bytes = len(encoded) + CRC_BYTES
        offset = self._end if self._compressed else self._layout.chunk_offset(chunk)
        self._end += num_bytes
        self._places[chunk], self._digests[chunk] = (offset, num_bytes), digest
        with disk_errors(self._name):
            write_all(self._file, [encoded, crc], offset)
            begin_writeback(self._file, offset, num_bytes)

    def finish(self) -> StoredObject:
        """Write padding chunks and the index, after the workers were drained; the caller syncs the file.

        Raises:
            StoreCorrupt: Rows are missing.
            StoreFull: The disk is full.
        """
        used = -(-self._valid_rows // self._layout.chunk_rows)
        absent = [chunk for chunk in range(used) if not self._submitted[chunk]]
        missing = sum(self._open[chunk].missing if chunk in self._open else self._valid_in(chunk) for chunk in absent)
        if missing:
            raise StoreCorrupt(f"{self._name}: {missing} of {self._valid_rows} planned rows never arrived.")
        self._put_padding(range(used, self._layout.num_chunks))
        index = shard_index(self._places)
        with disk_errors(self._name):
            write_all(self._file, [index], self._end)
        return StoredObject(
            num_bytes=self._end + len(index),
            digest=shard_digest(self._digests, index),
            index_crc32c=index_crc32c(index),
        )

    def _put_padding(self, chunks: range) -> None:
        if chunks:
            encoded = self._codec.encode(np.zeros((self._layout.chunk_rows, self._width), self._dtype))
            digest, crc = chunk_digest(encoded), checksum(encoded)
            for chunk in chunks:
                self._put(chunk, encoded, digest, crc)

    def statistics(self) -> SiteStatistics:
        """What the rows of the whole shard add up to, after the workers were drained."""
        return self._statistics.finish()

    def sync(self) -> None:
        """Make the file's bytes durable."""
        sync(self._file, self._name)


def sync(descriptor: int, name: str) -> None:
    with disk_errors(name):
        os.fdatasync(descriptor)


def write_all(descriptor: int, parts: list[Encoded], offset: int) -> None:
    """`pwritev` until every byte is down; a short write continues where it stopped."""
    pending = [memoryview(part if isinstance(part, bytes) else part.data).cast("B") for part in parts]
    while pending:
        written = os.pwritev(descriptor, pending, offset)
        offset += written
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if pending and written:
            pending[0] = pending[0][written:]
