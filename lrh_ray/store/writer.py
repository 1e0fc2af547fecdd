"""Write one block: rows in any order, chunks at their places, one commit for all sites.

    with BlockWriter(root, plan, block=7, attempt="a1", worker="node-3") as writer:
        backend.forward(tokens, writer)      # calls writer.write(site, offset, rows)
        receipt = writer.commit()

One writer per block and attempt. Rows are copied and background threads do the rest, so the model waits only when the
disk is slower than it. Nothing is visible before `commit`; leaving the context without it discards the attempt.

What can go wrong: rows written twice, outside the block, or missing at the commit are `StoreCorrupt` (the backend broke
its promise); values that are not finite, or that the store's type cannot hold, are counted and refused at the commit; a
full disk is `StoreFull`, at the next write or at the commit.
"""

import time
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from lrh_ray.digests import digest_bytes
from lrh_ray.durable import disk_errors
from lrh_ray.errors import StoreCorrupt
from lrh_ray.layouts import Rows
from lrh_ray.records import Receipt
from lrh_ray.store.attempts import Attempt
from lrh_ray.store.chunk_workers import ChunkWorkers
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.commit_records import STATISTICS, Commit, StoredObject
from lrh_ray.store.objects import Location, open_objects
from lrh_ray.store.plan import Plan
from lrh_ray.store.shard_writer import ShardWriter, chunk_buffers, sync, write_all
from lrh_ray.store.statistics import SiteStatistics, encode

THREADS = 1
DEPTH = 3  # chunks that wait; more only delays the moment at which a slow disk slows the model


class BlockWriter:
    """All sites of one block, from one attempt; a `RowSink` for a backend."""

    def __init__(
        self,
        location: Location,
        plan: Plan,
        *,
        block: int,
        attempt: str,
        worker: str,
        software: Mapping[str, str] | None = None,
    ) -> None:
        self._plan, self._block, self._attempt_id, self._worker = plan, block, attempt, worker
        self._software = dict(software or {})
        self._started = time.monotonic()
        self._workers = ChunkWorkers(threads=THREADS, depth=DEPTH)
        self._attempt = Attempt(open_objects(location), block=block, attempt=attempt)
        self._shards = {
            site.name: ShardWriter(
                self._attempt.create(site.name),
                site.name,
                plan.shard(site.name),
                dtype=plan.dtype_of(site.name),
                width=site.width,
                valid_rows=int(plan.valid_rows[block]),
                codec=open_codec(plan.compression, plan.dtype_of(site.name)),
                compressed=plan.compression != "none",
                workers=self._workers,
                buffers=chunk_buffers(plan.chunk_rows, site.width, plan.dtype_of(site.name)),
            )
            for site in plan.sites
        }

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Take rows of `site`, starting `offset` rows into the block, in the site's dtype or, of floats, as float32."""
        self._shards[site].write(offset, rows)

    def commit(self) -> Receipt:
        """Make the block durable and visible, or find that another attempt already did."""
        self._workers.drain()
        objects = {name: shard.finish() for name, shard in self._shards.items()}
        for shard in self._shards.values():
            self._workers.submit(shard.sync)  # while this thread merges the statistics
        statistics = {name: shard.statistics() for name, shard in self._shards.items()}
        overflow = {name: shard.overflow for name, shard in self._shards.items()}
        nonfinite = {name: site.nonfinite - overflow[name] for name, site in statistics.items()}
        self._refuse_nonfinite(nonfinite)
        self._refuse_overflow(overflow)
        objects[STATISTICS] = self._stage_statistics(statistics)
        self._workers.drain()
        commit = Commit(
            block=self._block,
            attempt=self._attempt_id,
            valid_rows=int(self._plan.valid_rows[self._block]),
            objects=objects,
            nonfinite=nonfinite,
            overflow=overflow,
            seconds=round(time.monotonic() - self._started, 3),
            worker=self._worker,
            software=self._software,
        )
        committed = self._attempt.commit(commit)
        return Receipt(
            block=self._block,
            attempt=self._attempt_id,
            rows=commit.valid_rows,
            num_bytes=sum(stored.num_bytes for stored in objects.values()),
            seconds=commit.seconds,
            worker=self._worker,
            committed=committed,
        )

    def _refuse_nonfinite(self, counts: Mapping[str, int]) -> None:
        broken = {name: count for name, count in counts.items() if count}
        if broken:
            raise StoreCorrupt(
                f"Block {self._block}: values that are not finite, by site: {broken}. The model overflows in its own "
                f"data type; run it in bfloat16 or float32 (model.dtype) and keep that on disk (store.dtype)."
            )

    def _refuse_overflow(self, counts: Mapping[str, int]) -> None:
        broken = {name: count for name, count in counts.items() if count}
        if broken:
            largest = float(np.finfo(np.float16).max) if self._plan.dtype == "float16" else "the largest finite number"
            raise StoreCorrupt(
                f"Block {self._block}: values beyond {largest}, which {self._plan.dtype} cannot hold, by site: "
                f"{broken}. Keep the model's own data type on disk (store.dtype: model), or bfloat16 or float32."
            )

    def _stage_statistics(self, sites: Mapping[str, SiteStatistics]) -> StoredObject:
        data = encode(sites)
        with disk_errors(STATISTICS):
            file = self._attempt.create(STATISTICS)
            write_all(file, [data], 0)
        self._workers.submit(lambda: sync(file, STATISTICS))
        return StoredObject(num_bytes=len(data), digest=digest_bytes(data))

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._workers.close()
        self._attempt.close()
