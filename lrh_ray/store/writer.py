"""Write one block: rows in any order, chunks at their places, one commit for all sites.

    with BlockWriter(root, plan, block=7, attempt="a1", worker="node-3") as writer:
        backend.forward(tokens, writer)      # calls writer.write(site, offset, rows)
        receipt = writer.commit()

One writer per block and attempt. A chunk is checksummed and written when its last row has arrived, so memory holds
only unfinished chunks. Nothing is visible before `commit`; leaving the context without it discards the attempt.

What can go wrong: rows written twice, outside the block, or missing at the commit are `StoreCorrupt` (the backend broke
its promise); non-finite values are counted and refused at the commit; a full disk is `StoreFull`.
"""

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from lrh_ray.digests import digest_bytes, digest_file
from lrh_ray.durable import disk_errors, make_folder, sync_folder
from lrh_ray.errors import StoreCorrupt
from lrh_ray.layouts import Rows
from lrh_ray.records import Receipt
from lrh_ray.store.commits import (
    STATISTICS,
    Commit,
    StoredObject,
    discard_attempt,
    is_committed_by,
    publish,
    staged_path,
    write_commit,
)
from lrh_ray.store.plan import DTYPES, Plan
from lrh_ray.store.shards import CRC_BYTES, ShardLayout, checksum, crc32c
from lrh_ray.store.statistics import ColumnMoments, SiteStatistics, encode, merge_all


class ShardWriter:
    """The shard of one site: collects rows into chunks, writes each complete chunk once."""

    def __init__(self, path: Path, layout: ShardLayout, dtype: np.dtype, width: int, valid_rows: int) -> None:
        self.path = path
        self._layout = layout
        self._dtype = dtype
        self._width = width
        self._valid_rows = valid_rows
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # chunk -> (rows, which of them have arrived)
        self._moments: dict[int, ColumnMoments] = {}
        self._norms = np.full(valid_rows, np.nan, dtype=np.float32)
        self.nonfinite = 0
        self.file = _create_locked(path)

    def write(self, offset: int, rows: Rows) -> None:
        """Take rows [offset, offset + len(rows)) of the block."""
        if offset < 0 or offset + len(rows) > self._valid_rows or rows.shape[1] != self._width:
            raise StoreCorrupt(
                f"{self.path.name}: rows {offset}..{offset + len(rows)} of width {rows.shape[1]} do not fit a block of "
                f"{self._valid_rows} rows of width {self._width}."
            )
        step = self._layout.chunk_rows
        for chunk in range(offset // step, -(-(offset + len(rows)) // step)):
            first, last = max(offset, chunk * step), min(offset + len(rows), (chunk + 1) * step)
            self._fill(chunk, first - chunk * step, rows[first - offset : last - offset])

    def _fill(self, chunk: int, first: int, rows: np.ndarray) -> None:
        if chunk in self._moments:
            raise StoreCorrupt(f"{self.path.name}: rows of chunk {chunk} arrived twice.")
        if chunk not in self._open:
            shape = (self._layout.chunk_rows, self._width)
            self._open[chunk] = np.zeros(shape, self._dtype), np.zeros(shape[0], dtype=bool)
        buffer, arrived = self._open[chunk]
        here = slice(first, first + len(rows))
        if arrived[here].any():
            raise StoreCorrupt(f"{self.path.name}: rows of chunk {chunk} arrived twice.")
        buffer[here] = rows
        arrived[here] = True
        valid = self._valid_in(chunk)
        if arrived[:valid].all():
            del self._open[chunk]
            self._finish_chunk(chunk, buffer, valid)

    def _valid_in(self, chunk: int) -> int:
        return min(self._layout.chunk_rows, self._valid_rows - chunk * self._layout.chunk_rows)

    def _finish_chunk(self, chunk: int, buffer: np.ndarray, valid: int) -> None:
        rows_ND = buffer[:valid].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND))
        if not np.isfinite(norms).all():
            self.nonfinite += int((~np.isfinite(rows_ND)).sum())
        first = chunk * self._layout.chunk_rows
        self._norms[first : first + valid] = norms
        self._moments[chunk] = ColumnMoments.of(rows_ND)
        self._put(chunk, buffer)

    def _put(self, chunk: int, buffer: np.ndarray) -> None:
        with disk_errors(self.path.name):
            _write_all(
                self.file, [buffer.reshape(-1).view(np.uint8), checksum(buffer)], self._layout.chunk_offset(chunk)
            )

    def finish(self) -> tuple[StoredObject, SiteStatistics]:
        """Write padding chunks and the index, sync, and return what was written."""
        missing = int(np.isnan(self._norms).sum()) if not self.nonfinite else 0
        if self._open or missing:
            raise StoreCorrupt(f"{self.path.name}: {missing} of {self._valid_rows} planned rows never arrived.")
        padding = np.zeros((self._layout.chunk_rows, self._width), self._dtype)
        for chunk in range(-(-self._valid_rows // self._layout.chunk_rows), self._layout.num_chunks):
            self._put(chunk, padding)
        with disk_errors(self.path.name):
            _write_all(self.file, [self._layout.index], self._layout.index_offset)
            os.fdatasync(self.file)
        stored = StoredObject(num_bytes=self._layout.shard_bytes, digest=digest_file(self.path))
        moments = merge_all(self._moments[chunk] for chunk in sorted(self._moments))
        return stored, SiteStatistics(moments=moments, norms=self._norms, nonfinite=self.nonfinite)

    @property
    def index_crc32c(self) -> int:
        return crc32c(self._layout.index[:-CRC_BYTES])

    def close(self) -> None:
        os.close(self.file)


class BlockWriter:
    """All sites of one block, from one attempt; a `RowSink` for a backend."""

    def __init__(
        self,
        root: Path,
        plan: Plan,
        *,
        block: int,
        attempt: str,
        worker: str,
        software: Mapping[str, str] | None = None,
    ) -> None:
        self._root, self._plan = root, plan
        self._block, self._attempt, self._worker = block, attempt, worker
        self._software = dict(software or {})
        self._started = time.monotonic()
        self._statistics_file: int | None = None
        self._valid_rows = int(plan.valid_rows[block])
        self._shards: dict[str, ShardWriter] = {}
        with disk_errors("staging"):
            make_folder(root / "staging")
            for site in plan.sites:
                self._shards[site.name] = ShardWriter(
                    staged_path(root, block, attempt, site.name),
                    plan.shard(site.name),
                    DTYPES[plan.dtype],
                    site.width,
                    self._valid_rows,
                )

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Take rows of `site`, starting `offset` rows into the block, in the store's dtype."""
        self._shards[site].write(offset, rows)

    def commit(self) -> Receipt:
        """Make the block durable and visible, or find that another attempt already did."""
        finished = {name: shard.finish() for name, shard in self._shards.items()}
        self._refuse_nonfinite({name: statistics.nonfinite for name, (_, statistics) in finished.items()})
        objects = {name: stored for name, (stored, _) in finished.items()}
        objects[STATISTICS] = self._stage_statistics({name: statistics for name, (_, statistics) in finished.items()})
        sync_folder(self._root / "staging")
        commit = Commit(
            block=self._block,
            attempt=self._attempt,
            valid_rows=self._valid_rows,
            objects=objects,
            nonfinite={name: statistics.nonfinite for name, (_, statistics) in finished.items()},
            index_crc32c={name: shard.index_crc32c for name, shard in self._shards.items()},
            seconds=round(time.monotonic() - self._started, 3),
            worker=self._worker,
            software=self._software,
        )
        self._refuse_swept()
        committed = write_commit(self._root, commit)
        if committed:
            publish(self._root, commit)
        return Receipt(
            block=self._block,
            attempt=self._attempt,
            rows=self._valid_rows,
            num_bytes=sum(stored.num_bytes for stored in objects.values()),
            seconds=commit.seconds,
            worker=self._worker,
            committed=committed,
        )

    def _refuse_swept(self) -> None:
        """Staged files must still have names; a sweeper on a node that does not see our locks may have taken them."""
        files = [shard.file for shard in self._shards.values()]
        if not all(os.fstat(file).st_nlink for file in files):
            raise StoreCorrupt(
                f"Block {self._block}: staged files were removed while their writer lived. The file system does not "
                f"share locks between nodes; start one driver at a time for this store."
            )

    def _refuse_nonfinite(self, counts: Mapping[str, int]) -> None:
        broken = {name: count for name, count in counts.items() if count}
        if broken:
            raise StoreCorrupt(
                f"Block {self._block}: values that are not finite, by site: {broken}. The model overflows in "
                f"{self._plan.dtype}; run it in bfloat16 or float32 (model.dtype) and keep that on disk (store.dtype)."
            )

    def _stage_statistics(self, sites: Mapping[str, SiteStatistics]) -> StoredObject:
        data = encode(sites)
        path = staged_path(self._root, self._block, self._attempt, STATISTICS)
        with disk_errors(path.name):
            self._statistics_file = _create_locked(path)
            _write_all(self._statistics_file, [data], 0)
            os.fdatasync(self._statistics_file)
        return StoredObject(num_bytes=len(data), digest=digest_bytes(data))

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for shard in self._shards.values():
            shard.close()
        if self._statistics_file is not None:
            os.close(self._statistics_file)
        if not is_committed_by(self._root, self._block, self._attempt):
            discard_attempt(self._root, self._block, self._attempt)


def _create_locked(path: Path) -> int:
    """Create a staged file and hold its lock, which tells a sweeper that the writer lives."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # swept between creation and lock: make it anew


def _write_all(descriptor: int, parts: list[np.ndarray | bytes], offset: int) -> None:
    """`pwritev` until every byte is down; a short write continues where it stopped."""
    pending = [memoryview(part.data if isinstance(part, np.ndarray) else part).cast("B") for part in parts]
    while pending:
        written = os.pwritev(descriptor, pending, offset)
        offset += written
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if pending and written:
            pending[0] = pending[0][written:]
