"""Shuffled reading, warm and cold, against the same block shuffle over a memory map, and sequential reading.

An epoch is what a trainer sees: every row once, in batches of 4,096, windows of a quarter of the rows, pieces of a
window in random order (of the loader's own piece size, for every reader). All readers but ours go through
`BlockShuffle`, the plainest fast way there is: pieces into one preallocated buffer, a permutation in memory,
`np.take(out=)`. A quarter, because one window of all rows, the loader's default for stores this small,
would leave nothing to prefetch.

Every reader's epoch is checked once, outside the timing: the multiset of its rows must be that of the source.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import psutil
from store_pairs import Quiet, Record, Side, measure
from store_rows import SITE, Data

from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.loader import Loader, Verify
from lrh_ray.store.order import cut_pieces
from lrh_ray.store.reader import open_store

BATCH_ROWS = 4096
WINDOWS = 4
WARM_TARGET, VERIFIED_TARGET, COLD_TARGET = 0.90, 0.50, 0.60

Fill: TypeAlias = Callable[[list[slice], np.ndarray], None]
"""Reads the given runs of rows, one after the other, into a uint16 buffer."""
Take: TypeAlias = Callable[[np.ndarray], None]
"""What is done with each batch."""


def drop(batch: np.ndarray) -> None:
    """A timed epoch does nothing with its batches."""


class Checksum:
    """Sum over rows of a hash of each row: equal for equal multisets of rows, whatever their order."""

    def __init__(self, dim: int) -> None:
        self._weights = np.random.default_rng(7).integers(1, 1 << 20, size=dim, dtype=np.uint64)
        self.value, self.rows = 0, 0

    def __call__(self, batch: np.ndarray) -> None:
        hashes = batch.view(np.uint16).astype(np.uint64) @ self._weights
        self.value = (self.value + sum((hashes * hashes).tolist())) % (1 << 64)
        self.rows += len(batch)


@dataclass
class BlockShuffle:
    """Epochs over anything that can read runs of rows."""

    data: Data
    fill: Fill
    seed: int = 0

    def __post_init__(self) -> None:
        self.window_rows = self.data.rows // WINDOWS
        self.piece_rows = piece_rows(self.data)
        self._buffer = aligned_empty((self.window_rows, self.data.dim), np.dtype(np.uint16))
        self._batch = aligned_empty((BATCH_ROWS, self.data.dim), np.dtype(np.uint16))

    def epoch(self, take: Take = drop) -> None:
        self.seed += 1
        rng = np.random.default_rng(self.seed)
        pieces = rng.permutation(self.data.rows // self.piece_rows)
        for window in np.split(pieces, WINDOWS):
            runs = [slice(int(piece) * self.piece_rows, int(piece + 1) * self.piece_rows) for piece in window]
            self.fill(runs, self._buffer)
            order = rng.permutation(self.window_rows)
            for first in range(0, self.window_rows, BATCH_ROWS):
                picked = order[first : first + BATCH_ROWS]
                out = self._batch[: len(picked)]
                np.take(self._buffer, picked, axis=0, out=out, mode="clip")
                take(out)


def piece_rows(data: Data) -> int:
    return cut_pieces(data.plan, data.rows // WINDOWS).rows_per_piece


class LoaderEpochs:
    """Epochs of our loader."""

    def __init__(self, data: Data, location: Path, verify: Verify) -> None:
        store = open_store(location)
        self._loader = Loader(
            store, SITE, batch_size=BATCH_ROWS, window_rows=data.rows // WINDOWS, verify=verify, prefetch=1
        )

    def epoch(self, take: Take = drop) -> None:
        for batch in self._loader:
            take(batch.rows[SITE])


def memmap_fill(path: Path, data: Data) -> Fill:
    rows = np.memmap(path, dtype=np.uint16, mode="r", shape=(data.rows, data.dim))

    def fill(runs: list[slice], out: np.ndarray) -> None:
        done = 0
        for run in runs:
            piece = rows[run]
            out[done : done + len(piece)] = piece
            done += len(piece)

    return fill


def check_epoch(data: Data, name: str, epoch: Callable[[Take], None]) -> None:
    """An epoch brings every row of the source once."""
    wanted, found = Checksum(data.dim), Checksum(data.dim)
    for first in range(0, data.rows, BATCH_ROWS):
        wanted(data.source[first : first + BATCH_ROWS])
    epoch(found)
    if (wanted.value, wanted.rows) != (found.value, found.rows):
        raise RuntimeError(f"{name} reads other rows than were written: {found.rows} of {wanted.rows} rows")


def our_epochs(data: Data, location: Path) -> dict[str, Side]:
    """Our loader without and with crc32c of every chunk, checked."""
    sides = {}
    for verify, name in (("never", "loader"), ("always", "loader, verified")):
        loader = LoaderEpochs(data, location, verify)  # type: ignore[arg-type]
        check_epoch(data, name, loader.epoch)
        sides[verify] = Side(name=name, run=loader.epoch)
    return sides


def warm_measures(data: Data, flat: Path, ours: dict[str, Side], *, pairs: int, quiet: Quiet) -> list[Record]:
    """The loader against a memory map; the files are in memory."""
    shuffle = BlockShuffle(data, memmap_fill(flat, data))
    check_epoch(data, "memmap", shuffle.epoch)
    memmap = Side(name="memmap, block-shuffled", run=shuffle.epoch)
    return [
        {"measure": measured, "target": target, **measure(memmap, ours[verify], pairs=pairs, quiet=quiet)}
        for measured, target, verify in (
            ("warm shuffled read", WARM_TARGET, "never"),
            ("warm shuffled read, verified", VERIFIED_TARGET, "always"),
        )
    ]


def cold_measures(data: Data, folder: Path, *, pairs: int, quiet: Quiet) -> list[Record]:
    """A shuffled epoch from disk against reading the same bytes from the first to the last."""
    flat, location = folder / "flat", folder / "store"
    data.write_flat(flat)
    data.make_store(location)
    os.sync()
    loader = LoaderEpochs(data, location, "never")
    check_epoch(data, "loader", loader.epoch)
    buffer = aligned_empty((data.plan.shard(SITE).chunk_bytes * 8,), np.dtype(np.uint8))
    reads = DiskReads()

    def before() -> None:
        evict(folder)
        reads.start()

    ours = Side(name="loader, cold", run=loader.epoch, before=before, after=reads.stop)
    limit = Side(name="sequential readinto, cold", run=partial(_read_through, flat, buffer), before=before)
    record = measure(limit, ours, pairs=pairs, quiet=quiet, warm_up=False)
    share = float(np.median(reads.num_bytes)) / data.num_bytes
    return [{"measure": "cold shuffled read", "target": COLD_TARGET, **record, "share_read_from_disk": round(share, 3)}]


class DiskReads:
    """Bytes that this process caused to be read from disks, for each timed run."""

    def __init__(self) -> None:
        self.num_bytes: list[int] = []
        self._start = 0

    def start(self) -> None:
        self._start = self._now()

    def stop(self) -> None:
        self.num_bytes.append(self._now() - self._start)

    def _now(self) -> int:
        return int(psutil.Process().io_counters().read_bytes)


def evict(folder: Path) -> None:
    """Ask the kernel to forget the files; the host of a virtual machine may still remember them."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _read_through(path: Path, buffer: np.ndarray) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer.data):
            pass
