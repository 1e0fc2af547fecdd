"""This machine as a place to extract on: its memory, its disk, and what its disk takes from the store's own writer.

The sink is measured with the real hot path (checksums, digests, statistics, codec, write, sync) on a temporary file
beside the run's folder, for about a second; the file is gone afterwards.

What can go wrong: a folder that cannot be written gives no figure, and the plan then assumes one and says so.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lrh_ray.errors import LrhError
from lrh_ray.store.chunk_workers import ChunkWorkers
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.shard_writer import ShardWriter, chunk_buffers
from lrh_ray.store.shards import ShardLayout
from lrh_ray.store.writer import DEPTH, THREADS
from lrh_ray.studies.planning_layout import Layout

SECONDS = 1.0
MOST_BYTES = 64 << 20


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def own_memory() -> int:
    """Bytes that this process holds in memory now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def measure_sink(folder: Path, layout: Layout, compression: str) -> float | None:
    """Bytes of rows per second that one writer makes durable in `folder`; None where it cannot write."""
    site, dtype = max(layout.sites, key=lambda one: one.width), DTYPES[layout.dtype]
    chunk_bytes = layout.chunk_rows * site.width * dtype.itemsize
    shape = ShardLayout(
        chunk_rows=layout.chunk_rows,
        num_chunks=max(1, MOST_BYTES // chunk_bytes),
        row_bytes=site.width * dtype.itemsize,
    )
    rows = np.random.default_rng(0).standard_normal((layout.chunk_rows, site.width)).astype(dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return _write(file.fileno(), shape, rows, compression)
    except (OSError, LrhError):
        return None


def _write(descriptor: int, shape: ShardLayout, rows: np.ndarray, compression: str) -> float:
    workers = ChunkWorkers(threads=THREADS, depth=DEPTH)
    writer = ShardWriter(
        descriptor,
        "measured",
        shape,
        dtype=rows.dtype,
        width=rows.shape[1],
        valid_rows=shape.num_chunks * shape.chunk_rows,
        codec=open_codec(compression, rows.dtype),
        compressed=compression != "none",
        workers=workers,
        buffers=chunk_buffers(shape.chunk_rows, rows.shape[1], rows.dtype),
    )
    try:
        writer.write(0, rows)  # kernels are compiled with the first chunk
        workers.drain()
        written, started = 0, time.perf_counter()
        for chunk in range(1, shape.num_chunks):
            writer.write(chunk * shape.chunk_rows, rows)
            written += rows.nbytes
            if time.perf_counter() - started > SECONDS:
                break
        workers.drain()
        writer.sync()
        return max(written, rows.nbytes) / (time.perf_counter() - started)
    finally:
        workers.close()
