"""Hold every byte of one shard against what its commit says, in constant memory.

    check_shard(source, key, stored, every_byte=True, buffer=Buffer())      # [] or what is wrong

Index first: where it does not stand, no standard reader finds any row, so the whole shard is damaged. Then chunk after
chunk, several at a time into one reused buffer: a wrong crc32c names its chunk. Chunks that all match their own
checksums can still be another attempt's or another block's; the digest in the commit tells.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lrh_ray.errors import StoreCorrupt
from lrh_ray.store.commit_records import StoredObject
from lrh_ray.store.findings import Kind
from lrh_ray.store.objects import READ_ONLY, Objects
from lrh_ray.store.shard_reader import ShardSource, index_range, read_index
from lrh_ray.store.shards import CRC_BYTES, checksum, chunk_digest, index_crc32c, shard_digest

PIECE_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardDamage:
    """Consecutive chunks of a shard that are wrong, and how."""

    kind: Kind
    chunks: range
    message: str


@dataclass(kw_only=True, slots=True)
class Buffer:
    """Memory for pieces of shards, grown once and used again; one per thread."""

    data: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint8))

    def of(self, num_bytes: int) -> np.ndarray:
        if self.data.size < num_bytes:
            self.data = np.empty(num_bytes, dtype=np.uint8)
        return self.data[:num_bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Extent:
    """Where one chunk stands, its checksum included."""

    chunk: int
    offset: int
    length: int


class _Bytes:
    """Ranges of one object: of an open file into the buffer, or of a remote object."""

    def __init__(self, objects: Objects, key: str, path: Path | None, buffer: Buffer) -> None:
        self._objects, self._key, self._buffer = objects, key, buffer
        self._file = None if path is None else os.open(path, READ_ONLY)

    def read(self, start: int, length: int) -> np.ndarray:
        """Bytes [start, start + length), or fewer where the object ends; valid until the next read."""
        if self._file is None:
            found = self._objects.get(self._key, start, length)
            return np.frombuffer(b"" if found is None else found.data, dtype=np.uint8)
        data = self._buffer.of(length)
        filled = 0
        while filled < length:
            count = os.preadv(self._file, [data[filled:].data], start + filled)
            if not count:
                break
            filled += count
        return data[:filled]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)


def check_shard(
    source: ShardSource, key: str, stored: StoredObject, *, every_byte: bool, buffer: Buffer
) -> list[ShardDamage]:
    """What is wrong with the shard at `key`, whose size is right already: its index, or also every byte."""
    data = _Bytes(source.objects, key, source.objects.local_path(key), buffer)
    try:
        return _check(source, data, stored, every_byte)
    finally:
        data.close()


def _check(source: ShardSource, data: _Bytes, stored: StoredObject, every_byte: bool) -> list[ShardDamage]:
    all_chunks = range(source.layout.num_chunks)
    index = data.read(*index_range(source.layout, stored.num_bytes)).tobytes()
    try:
        extents = _extents(source, index, stored)
    except StoreCorrupt as error:
        return [ShardDamage(kind="bytes", chunks=all_chunks, message=str(error))]
    if not every_byte:
        return []
    digests: list[bytes] = [b""] * source.layout.num_chunks
    damaged: list[int] = []
    for extent, chunk in _chunks(data, extents):
        if chunk.size != extent.length or checksum(chunk[:-CRC_BYTES]) != chunk[-CRC_BYTES:].tobytes():
            damaged.append(extent.chunk)
        else:
            digests[extent.chunk] = chunk_digest(chunk[:-CRC_BYTES])
    if damaged:
        return [
            ShardDamage(kind="bytes", chunks=chunks, message=f"chunks {chunks.start}..{chunks.stop - 1}: wrong crc32c")
            for chunks in _runs(sorted(damaged))
        ]
    if shard_digest(digests, index) != stored.digest:
        message = "each chunk matches its own crc32c, the shard not its commit: bytes of another attempt or block"
        return [ShardDamage(kind="bytes", chunks=all_chunks, message=message)]
    return []


def _extents(source: ShardSource, index: bytes, stored: StoredObject) -> list[_Extent]:
    """Where the chunks stand, in that order: one after the other from the first byte up to the index.

    Raises:
        StoreCorrupt: An index that is damaged, another shard's, or leaves bytes that no chunk covers.
    """
    if source.compression == "none":
        if index != source.layout.index:
            raise StoreCorrupt("the index is not the one of an uncompressed shard of this plan")
        places: Sequence[tuple[int, int]] = [
            (source.layout.chunk_offset(chunk), source.layout.chunk_bytes + CRC_BYTES)
            for chunk in range(source.layout.num_chunks)
        ]
    else:
        places = read_index(source, index, stored.num_bytes)
    if index_crc32c(index) != stored.index_crc32c:
        raise StoreCorrupt("the index is intact and not the one that was committed: bytes of another attempt or block")
    extents = [_Extent(chunk=chunk, offset=place[0], length=place[1]) for chunk, place in enumerate(places)]
    if sum(extent.length for extent in extents) != index_range(source.layout, stored.num_bytes)[0]:
        raise StoreCorrupt("the index leaves bytes that belong to no chunk")
    return sorted(extents, key=lambda extent: extent.offset)


def _chunks(data: _Bytes, extents: Sequence[_Extent]) -> Iterator[tuple[_Extent, np.ndarray]]:
    """Each chunk with its bytes, read in pieces of several; bytes are valid until the next one."""
    first = 0
    while first < len(extents):
        start, stop = extents[first].offset, first
        while stop < len(extents) and (
            stop == first or extents[stop].offset + extents[stop].length - start <= PIECE_BYTES
        ):
            stop += 1
        piece = data.read(start, extents[stop - 1].offset + extents[stop - 1].length - start)
        for extent in extents[first:stop]:
            yield extent, piece[extent.offset - start : extent.offset - start + extent.length]
        first = stop


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Consecutive numbers as ranges."""
    first = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            yield range(numbers[first], number + 1)
            first = index + 1
