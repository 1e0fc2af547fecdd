"""Fill windows of memory with pieces of blocks, ahead of the reader, in threads that live as long as one iteration.

    reader = WindowReader(pieces=piece_reader, order=order, numbers=range(5), slots=slots)
    window = reader.window(3)        # waits for window 3; windows after it are being read meanwhile
    reader.close()                   # waits for reads in flight, then the slots are free again

All scheduling happens in the caller's thread when it moves to the next window: the slot of the old window is free, so
the next unread one is submitted to a small thread pool. The threads take its pieces one by one, and so does the caller
where it would otherwise wait. There is no sentinel and no thread that outlives `close`. An error of a read is raised
where its window is asked for.

Slots are reused: after the first windows nothing that grows with the rows is allocated. A process forked during an
iteration has no threads; the reader notices and reads again.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from lrh_ray.layouts import RowIndex
from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.filters import ChosenRows
from lrh_ray.store.order import EpochOrder, Pieces
from lrh_ray.store.reader import Store
from lrh_ray.store.shard_reader import ShardSource, read_rows

MOST_READERS = 2
RUN_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Memory for one window: rows of each site, and which rows of the store they are."""

    rows: Mapping[str, np.ndarray]
    index: RowIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A filled slot. Position t of the epoch inside this window is row `order[t]` of the slot."""

    number: int
    slot: Slot
    order: RowIndex


@dataclass(frozen=True, slots=True)
class _Reading:
    """A slot that is being filled."""

    number: int
    slot: Slot
    unread: deque[tuple[int, int, int]]
    """Piece, its first row in the slot, and its number of rows."""
    order: Future[RowIndex]
    reads: list[Future[None]] = field(default_factory=list)


def num_readers() -> int:
    """Threads beside the caller, who helps: three that copy on two cores keep each other waiting."""
    return max(1, min(MOST_READERS, (os.cpu_count() or 1) - 1))


def make_slot(store: Store, sites: Sequence[str], num_rows: int) -> Slot:
    plan = store.plan
    rows = {site: aligned_empty((num_rows, plan.site(site).width), plan.dtype_of(site)) for site in sites}
    return Slot(rows=rows, index=np.empty(num_rows, dtype=np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceReader:
    """Reads the chosen rows of one piece into a part of a slot."""

    store: Store
    sites: tuple[str, ...]
    pieces: Pieces
    chosen: ChosenRows
    verify: bool

    def read(self, piece: int, slot: Slot, first: int, num_rows: int) -> None:
        """Fill rows [first, first + num_rows) of `slot`."""
        block, offset = self.pieces.block(piece), self.pieces.first_row(piece)
        here = slice(first, first + num_rows)
        base = block * self.store.plan.rows_per_block + offset
        chosen = self._chosen(block, offset, num_rows)
        slot.index[here] = base + (np.arange(num_rows) if chosen is None else chosen)
        for site in self.sites:
            source = self.store.shard(site, block)
            if chosen is None:
                read_rows(source, slot.rows[site][here], first_chunk=self.pieces.first_chunk(piece), verify=self.verify)
            else:
                self._read_chosen(source, self.pieces.first_chunk(piece), chosen, slot.rows[site][here])

    def _chosen(self, block: int, offset: int, num_rows: int) -> np.ndarray | None:
        """Rows of the piece that pass the filters, counted from its first; None if they are its leading rows."""
        if self.chosen.filters.keep_all:
            return None
        found = np.flatnonzero(self.chosen.mask(block)[offset : offset + self.pieces.rows_per_piece])
        return None if len(found) and found[-1] == num_rows - 1 else found

    def _read_chosen(self, source: ShardSource, first_chunk: int, chosen: np.ndarray, out: np.ndarray) -> None:
        """Read the chunks that hold chosen rows, a run at a time, through a small scratch array."""
        size = self.pieces.chunk_rows
        run_chunks = max(1, RUN_BYTES // source.layout.chunk_bytes)
        scratch = np.empty((run_chunks * size, out.shape[1]), out.dtype)
        done = 0
        while done < len(chosen):
            start = int(chosen[done]) // size
            stop = start + run_chunks
            last = int(np.searchsorted(chosen, stop * size))
            wanted = chosen[done:last] - start * size
            rows = scratch[: int(wanted[-1]) + 1]
            read_rows(source, rows, first_chunk=first_chunk + start, verify=self.verify)
            take_rows(rows, wanted, out[done:last])
            done = last


def take_rows(rows: np.ndarray, picked: np.ndarray, out: np.ndarray) -> None:
    """`out[:] = rows[picked]` for rows of one data type, with other threads running meanwhile.

    NumPy keeps its lock for bfloat16, which it does not know, so bits are moved. mode="clip" because the default copies
    `out` first; all indices are in range.
    """
    bits = np.dtype(f"u{rows.itemsize}")
    np.take(rows.view(bits), picked, axis=0, out=out.view(bits), mode="clip")


class WindowReader:
    """Reads windows of one epoch in the given order, as many ahead as there are slots."""

    def __init__(
        self, *, pieces: PieceReader, order: EpochOrder, numbers: Sequence[int], slots: Sequence[Slot]
    ) -> None:
        self._pieces, self._order = pieces, order
        self._unread = deque(numbers)
        self._free = deque(slots)
        self._reading: deque[_Reading] = deque()
        self._current: Window | None = None
        self._closed = False
        self._start_threads()

    @property
    def sites(self) -> tuple[str, ...]:
        return self._pieces.sites

    def _start_threads(self) -> None:
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(num_readers(), thread_name_prefix="lrh-read")

    def window(self, number: int) -> Window:
        """Window `number`; those before it are given up."""
        while self._current is None or self._current.number != number:
            self._current = self._next()
        return self._current

    def _next(self) -> Window:
        if os.getpid() != self._process:
            self._restart()
        if self._current is not None:
            self._free.append(self._current.slot)
        while self._free and self._unread:
            self._submit(self._unread.popleft(), self._free.popleft())
        window = self._reading[0]
        self._read(window)
        for read in window.reads:
            read.result()
        self._reading.popleft()
        return Window(number=window.number, slot=window.slot, order=window.order.result())

    def _submit(self, number: int, slot: Slot) -> None:
        pieces = self._order.pieces(number)
        firsts = np.cumsum([0, *(num_rows for _, num_rows in pieces)]).tolist()
        places = deque((piece, first, num_rows) for (piece, num_rows), first in zip(pieces, firsts, strict=False))
        window = _Reading(number, slot, places, self._threads.submit(self._order.permutation, number))
        window.reads.extend(self._threads.submit(self._read, window) for _ in range(min(num_readers(), len(places))))
        self._reading.append(window)

    def _read(self, window: "_Reading") -> None:
        """Read pieces that nobody else has taken, until there are none."""
        while not self._closed:
            try:
                piece, first, num_rows = window.unread.popleft()
            except IndexError:
                return
            self._pieces.read(piece, window.slot, first, num_rows)

    def _restart(self) -> None:
        """In a forked process the threads are gone and their reads unfinished: submit them again."""
        self._start_threads()
        unfinished = list(self._reading)
        self._reading.clear()
        for window in unfinished:
            self._submit(window.number, window.slot)

    def close(self) -> None:
        """Stop reading; when this returns, nobody writes into the slots any more."""
        self._closed = True
        if os.getpid() == self._process:
            self._threads.shutdown(wait=True, cancel_futures=True)
