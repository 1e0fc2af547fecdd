"""A ring: rows travel from one rank of an engine to the backend's process through shared memory of fixed size.

Engine and backend are different processes, and rows are produced faster than a pipe or a file per request can carry
them. So each rank owns a file in memory: two counters and a fixed number of slots, reused for ever. The rank fills
the next free slot in place and counts it as published; the backend reads it in place and counts it as free. A full
ring makes the rank wait, which is the backpressure; nothing grows with the length of a document.

    writer = RingWriter(path, shape);  slot = writer.slot();  slot[:n] = ...;  writer.publish(ROWS, ...)
    reader = RingReader(path, shape);  record = reader.peek();  ...;  reader.release()

Of each request a rank sends its windows in order, then one END. A window that could not be made is a FAILURE with the
reason in its place, so that the rings of all ranks hold the same sequence whatever fails on one of them. A record
carries the crc32c of its header and bytes: memory damaged or overwritten on the way is an error and never a row.

What can go wrong: `EngineFailed` when a checksum does not match or nobody frees a slot for ten minutes. One process
writes a ring and one reads it; a second writer would not be noticed. The file disappears with the last process that
has it open: the backend unlinks it as soon as all ranks have opened it.
"""

import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import final

import crc32c
import numpy as np

from lrh_ray.errors import EngineFailed

COUNTERS_BYTES = 128
"""Two counters, a cache line each: slots published, slots freed."""

HEADER = np.dtype(
    [
        ("sequence", "<u8"),
        ("request", "<u8"),
        ("first", "<u4"),
        ("rows", "<u4"),
        ("kind", "<u4"),
        ("num_bytes", "<u4"),
        ("tokens_crc32c", "<u4"),
        ("crc32c", "<u4"),
    ]
)
HEADER_BYTES = 64
MAX_REASON_BYTES = 1024
"""Room that every slot has for the reason of a failure."""

PATIENCE_S = 600.0
"""How long a rank waits for a free slot before it gives the request up: longer than any store's write retries."""

_NAP_S, _LONG_NAP_S = 20e-6, 1e-3


class Kind(IntEnum):
    """What a record is."""

    ROWS = 1
    FAILURE = 2
    END = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RingShape:
    """Sizes of one rank's ring: windows of `window_rows` rows of `sites` sites, `width` columns each."""

    sites: int
    width: int
    itemsize: int
    window_rows: int
    slots: int

    @property
    def payload_bytes(self) -> int:
        return self.sites * self.window_rows * self.width * self.itemsize

    @property
    def slot_bytes(self) -> int:
        return HEADER_BYTES + -(-max(self.payload_bytes, MAX_REASON_BYTES) // 64) * 64

    @property
    def file_bytes(self) -> int:
        return COUNTERS_BYTES + self.slots * self.slot_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record, its payload a view of the ring until it is released."""

    kind: Kind
    request: int
    first: int
    rows: int
    tokens_crc32c: int
    payload: np.ndarray


def fit_ring(*, num_bytes: int, sites: int, width: int, itemsize: int, longest: int) -> RingShape:
    """The ring of at most `num_bytes` (but at least 2 slots of a row) whose windows are an eighth of it.

    `longest` is the longest request in rows; a window need not be longer.
    """
    row_bytes = sites * width * itemsize
    window_rows = int(np.clip(num_bytes // 8 // row_bytes, 1, longest))
    slots = int(np.clip(num_bytes // (window_rows * row_bytes), 2, 64))
    return RingShape(sites=sites, width=width, itemsize=itemsize, window_rows=window_rows, slots=slots)


def create_ring(path: Path, shape: RingShape) -> None:
    """An empty ring; the file's memory is taken when it is first written."""
    with path.open("xb") as file:
        file.truncate(shape.file_bytes)


class _Mapped:
    """The mapping both sides share; counters and slots are views of it."""

    def __init__(self, path: Path, shape: RingShape) -> None:
        self.shape = shape
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), shape.file_bytes)
        self.memory = np.frombuffer(self._map, dtype=np.uint8)
        self.published = self.memory[:8].view(np.uint64)
        self.freed = self.memory[64:72].view(np.uint64)

    def slot(self, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        """Header (one record of HEADER) and payload bytes of the slot of a sequence number."""
        start = COUNTERS_BYTES + sequence % self.shape.slots * self.shape.slot_bytes
        header = self.memory[start : start + HEADER.itemsize].view(HEADER)
        return header, self.memory[start + HEADER_BYTES : start + self.shape.slot_bytes]


@final
class RingWriter:
    """The rank's end."""

    def __init__(self, path: Path, shape: RingShape) -> None:
        self._mapped, self._sequence = _Mapped(path, shape), 0
        self.shape = shape

    @property
    def memory(self) -> np.ndarray:
        """The whole mapping as bytes, for pinning."""
        return self._mapped.memory

    def slot(self, patience_s: float = PATIENCE_S) -> np.ndarray:
        """Payload bytes of the next slot, once it is free."""
        waited_since, nap = time.monotonic(), _NAP_S
        while self._sequence - int(self._mapped.freed[0]) >= self.shape.slots:
            if time.monotonic() - waited_since > patience_s:
                raise EngineFailed(
                    f"No slot of the ring of {self.shape.slots} windows became free in {patience_s:g} s: the process "
                    "that stores the rows has stopped. Look at its log and run the same command again."
                )
            time.sleep(nap)
            nap = min(2 * nap, _LONG_NAP_S)
        return self._mapped.slot(self._sequence)[1]

    def publish(
        self, kind: Kind, *, request: int, first: int = 0, rows: int = 0, num_bytes: int = 0, tokens_crc32c: int = 0
    ) -> None:
        """Hand the slot over: its first `num_bytes` bytes are the record's payload."""
        header, payload = self._mapped.slot(self._sequence)
        header[0] = (self._sequence, request, first, rows, int(kind), num_bytes, tokens_crc32c, 0)
        header["crc32c"] = _checksum(header, payload[:num_bytes])
        self._sequence += 1
        self._mapped.published[0] = self._sequence


@final
class RingReader:
    """The backend's end."""

    def __init__(self, path: Path, shape: RingShape) -> None:
        self._mapped, self._sequence = _Mapped(path, shape), 0

    def peek(self) -> Record | None:
        """The oldest record that was not released, checked; None when there is none yet."""
        if int(self._mapped.published[0]) <= self._sequence:
            return None
        header, slot = self._mapped.slot(self._sequence)
        fields = header[0].copy()
        payload = slot[: min(int(fields["num_bytes"]), len(slot))]
        if int(fields["sequence"]) != self._sequence or int(fields["crc32c"]) != _checksum(header, payload):
            raise EngineFailed(
                f"Window {self._sequence} of the shared-memory ring does not match its crc32c: memory was overwritten. "
                "The block is not committed; run the same command again."
            )
        return Record(
            kind=Kind(int(fields["kind"])),
            request=int(fields["request"]),
            first=int(fields["first"]),
            rows=int(fields["rows"]),
            tokens_crc32c=int(fields["tokens_crc32c"]),
            payload=payload,
        )

    def release(self) -> None:
        """Free the slot of the record `peek` returned."""
        self._sequence += 1
        self._mapped.freed[0] = self._sequence


def wait_for(ready: Callable[[], bool], idle: Callable[[float], None]) -> None:
    """Return when `ready()` holds; `idle(seconds without it)` is called between looks and may raise."""
    since, nap = time.monotonic(), _NAP_S
    while not ready():
        idle(time.monotonic() - since)
        time.sleep(nap)
        nap = min(2 * nap, _LONG_NAP_S)


def tokens_crc32c(token_ids: np.ndarray) -> int:
    """The crc32c of token ids as 32-bit integers: which tokens the rows of a window belong to."""
    return int(crc32c.crc32c(np.ascontiguousarray(token_ids, dtype="<i4").tobytes()))


def _checksum(header: np.ndarray, payload: np.ndarray) -> int:
    fields = header.copy()
    fields["crc32c"] = 0
    return int(crc32c.crc32c(payload.data, crc32c.crc32c(fields.tobytes())))
