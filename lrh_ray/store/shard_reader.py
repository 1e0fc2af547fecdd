"""Read rows of one shard straight into the caller's memory.

    source = shard_source(store.objects, store.plan, attempt=store.commits[7].attempt, block=7, site="resid.15")
    read_rows(source, out)                          # out: [rows, width], filled from the block's first row on
    read_rows(source, out, first_chunk=12)          # ... or from any chunk on

Uncompressed shards on a file system are read by `preadv`: the kernel scatters each chunk into its rows of `out` and its
checksum into four bytes beside, so no byte is copied twice and no memory is allocated that grows with the rows. (A
memory map is as fast when warm, slower when cold, and its pages count as memory of the process.) Remote shards are
fetched by ranges of at most `RANGE_BYTES`; compressed shards are decoded chunk by chunk through their index, of which
every entry is checked before it is believed.

What can go wrong: a missing, short or long file, a checksum that does not match, an index that points outside its file
are `StoreCorrupt`, naming block, site, chunk and rows.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lrh_ray.errors import StoreCorrupt
from lrh_ray.layouts import Rows
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.commit_records import object_key, staged_key
from lrh_ray.store.objects import Objects
from lrh_ray.store.plan import Plan
from lrh_ray.store.shards import CRC_BYTES, INDEX_ENTRY_BYTES, ShardLayout, crc32c

RANGE_BYTES = 32 << 20
SCATTER_CHUNKS = 512  # preadv takes 1024 buffers (IOV_MAX): rows and checksum of each chunk
COMPRESSED_BOUND = 2  # no codec of this package makes a chunk larger than twice its size plus a header
HEADER_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSource:
    """One shard: where its bytes stand and what they mean."""

    objects: Objects
    keys: tuple[str, ...]
    """Where to look, in this order: a committed shard may still be staged, and is published by one rename."""
    layout: ShardLayout
    dtype: np.dtype
    block: int
    site: str
    compression: str = "none"


def shard_source(objects: Objects, plan: Plan, *, attempt: str, block: int, site: str) -> ShardSource:
    """The shard of a committed block at one site; `attempt` is the one its commit names."""
    staged = (staged_key(block, attempt, site),) if objects.stages else ()
    return ShardSource(
        objects=objects,
        keys=(*staged, object_key(site, block)),
        layout=plan.shard(site),
        dtype=plan.dtype_of(site),
        block=block,
        site=site,
        compression=plan.compression,
    )


def read_rows(source: ShardSource, out: Rows, *, first_chunk: int = 0, verify: bool = True) -> None:
    """Fill `out` with the rows that start at chunk `first_chunk` of the shard.

    Args:
        source: The shard.
        out: [rows, width] C-contiguous, in the site's dtype; its length says how many rows are read.
        first_chunk: Chunk whose first row becomes `out[0]`.
        verify: Check the crc32c of every chunk touched, whole, also where `out` takes only its first rows.

    Raises:
        StoreCorrupt: The shard is missing, has the wrong size, or holds bytes that contradict their checksum.
        ValueError: `out` is not contiguous, of another dtype or width, or reaches beyond the shard.
    """
    flat = _flat(source, out, first_chunk)
    if not flat.size:
        return
    for key in source.keys:
        path = source.objects.local_path(key)
        found = _read_remote(source, key, flat, first_chunk, verify) if path is None else None
        if found or (path is not None and _read_file(source, path, flat, first_chunk, verify)):
            return
    raise StoreCorrupt(
        f"{_name(source, first_chunk)}: the shard is committed and missing at {' and '.join(source.keys)}. {_REMEDY}"
    )


_REMEDY = "Restore it from a copy, or run `lrh verify STORE --repair` and then the command it names."


def _flat(source: ShardSource, out: np.ndarray, first_chunk: int) -> np.ndarray:
    """The bytes of `out`, after checking that they are the rows asked for."""
    layout = source.layout
    if out.dtype != source.dtype or out.shape[1] * out.itemsize != layout.row_bytes or not out.flags.c_contiguous:
        raise ValueError(
            f"rows of {source.site!r} need a C-contiguous {source.dtype} array of {layout.row_bytes} bytes a row; got "
            f"{out.dtype} {out.shape}, contiguous: {out.flags.c_contiguous}."
        )
    if first_chunk < 0 or first_chunk * layout.chunk_rows + len(out) > layout.num_chunks * layout.chunk_rows:
        raise ValueError(
            f"{len(out)} rows from chunk {first_chunk} reach beyond a shard of {layout.num_chunks} chunks of "
            f"{layout.chunk_rows} rows."
        )
    return out.reshape(-1).view(np.uint8)


def _read_file(source: ShardSource, path: Path, flat: np.ndarray, first_chunk: int, verify: bool) -> bool:
    """Read from a file; False if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreCorrupt(f"{_name(source, first_chunk)}: {path} cannot be opened ({error}). {_REMEDY}") from error
    try:
        num_bytes = os.fstat(descriptor).st_size
        if source.compression != "none":
            _read_compressed(source, _FileBytes(descriptor, num_bytes), flat, first_chunk, verify)
        else:
            _check_size(source, num_bytes, first_chunk)
            _read_plain(source, descriptor, flat, first_chunk, verify)
    except OSError as error:
        raise StoreCorrupt(f"{_name(source, first_chunk)}: {path} cannot be read ({error}). {_REMEDY}") from error
    finally:
        os.close(descriptor)
    return True


def _read_plain(source: ShardSource, descriptor: int, flat: np.ndarray, first_chunk: int, verify: bool) -> None:
    """Scatter chunks into their rows. A verified chunk is read alone, so that its check finds it in the cache."""
    layout = source.layout
    num_chunks = -(-flat.size // layout.chunk_bytes)
    checksums = np.empty((num_chunks, CRC_BYTES), dtype=np.uint8)
    rest = np.empty(num_chunks * layout.chunk_bytes - flat.size if verify else 0, dtype=np.uint8)
    step = 1 if verify else SCATTER_CHUNKS
    for first in range(0, num_chunks, step):
        chunks = range(first, min(first + step, num_chunks))
        parts = [part for chunk in chunks for part in (_part(flat, chunk, layout), checksums[chunk])]
        last_is_partial = chunks.stop == num_chunks and flat.size % layout.chunk_bytes
        if last_is_partial:
            parts[-1:] = [rest, checksums[num_chunks - 1]] if verify else []
        if not _scatter(descriptor, parts, layout.chunk_offset(first_chunk + first)):
            raise StoreCorrupt(f"{_name(source, first_chunk + first)}: the file ends too early. {_REMEDY}")
        if verify:
            _check(source, first_chunk + first, parts[:-1], checksums[first])


def _part(flat: np.ndarray, chunk: int, layout: ShardLayout) -> np.ndarray:
    return flat[chunk * layout.chunk_bytes : (chunk + 1) * layout.chunk_bytes]


def _scatter(descriptor: int, parts: Sequence[np.ndarray], offset: int) -> bool:
    """`preadv` until every part is full; False at the end of the file."""
    pending = [part for part in parts if part.size]
    while pending:
        count = os.preadv(descriptor, pending, offset)  # type: ignore[arg-type]  # an ndarray is a buffer
        if not count:
            return False
        offset += count
        while pending and count >= pending[0].size:
            count -= pending.pop(0).size
        if count:
            pending[0] = pending[0][count:]
    return True


def _check(source: ShardSource, chunk: int, parts: Sequence[np.ndarray], checksum: np.ndarray) -> None:
    """Compare a chunk's bytes, which lie in one or several parts, with the crc32c stored after them."""
    value = 0
    for part in parts:
        value = crc32c(part, value) if part.size else value
    if value != int.from_bytes(checksum.tobytes(), "little"):
        raise StoreCorrupt(f"{_name(source, chunk)}: the bytes do not match their crc32c. {_REMEDY}")


def _check_size(source: ShardSource, num_bytes: int, chunk: int) -> None:
    if num_bytes != source.layout.shard_bytes:
        raise StoreCorrupt(
            f"{_name(source, chunk)}: the shard has {num_bytes} bytes where the plan says {source.layout.shard_bytes}. "
            f"{_REMEDY}"
        )


def _name(source: ShardSource, chunk: int) -> str:
    layout = source.layout
    first = (source.block * layout.num_chunks + chunk) * layout.chunk_rows
    return f"Block {source.block}, site {source.site!r}, chunk {chunk} (rows {first}..{first + layout.chunk_rows - 1})"


@dataclass(frozen=True, slots=True)
class _FileBytes:
    """Ranges of an open file."""

    descriptor: int
    num_bytes: int

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, start)


@dataclass(frozen=True, slots=True)
class _RemoteBytes:
    """Ranges of a remote object."""

    objects: Objects
    key: str
    num_bytes: int

    def read(self, start: int, length: int) -> bytes:
        found = self.objects.get(self.key, start, length)
        return b"" if found is None else found.data


def _read_remote(source: ShardSource, key: str, flat: np.ndarray, first_chunk: int, verify: bool) -> bool:
    """Read from an object store; False if there is no such object."""
    found = source.objects.get(key, 0, 0)
    if found is None:
        return False
    remote = _RemoteBytes(source.objects, key, found.num_bytes)
    if source.compression != "none":
        _read_compressed(source, remote, flat, first_chunk, verify)
        return True
    _check_size(source, found.num_bytes, first_chunk)
    layout = source.layout
    stride = layout.chunk_bytes + CRC_BYTES
    num_chunks = -(-flat.size // layout.chunk_bytes)
    step = max(1, RANGE_BYTES // stride)
    for first in range(0, num_chunks, step):
        count = min(step, num_chunks - first)
        data = np.frombuffer(remote.read(layout.chunk_offset(first_chunk + first), count * stride), dtype=np.uint8)
        if data.size != count * stride:
            raise StoreCorrupt(f"{_name(source, first_chunk + first)}: the object ends too early. {_REMEDY}")
        for chunk, stored in enumerate(data.reshape(count, stride), start=first):
            if verify:
                _check(source, first_chunk + chunk, [stored[:-CRC_BYTES]], stored[-CRC_BYTES:])
            rows = _part(flat, chunk, layout)
            rows[:] = stored[: rows.size]
    return True


def _read_compressed(
    source: ShardSource, stored: _FileBytes | _RemoteBytes, flat: np.ndarray, first_chunk: int, verify: bool
) -> None:
    layout = source.layout
    codec = open_codec(source.compression, source.dtype)
    index = read_index(source, stored.read(*index_range(layout, stored.num_bytes)), stored.num_bytes)
    spare = np.empty((layout.chunk_rows, layout.row_bytes // source.dtype.itemsize), dtype=source.dtype)
    for chunk in range(-(-flat.size // layout.chunk_bytes)):
        offset, length = index[first_chunk + chunk]
        data = np.frombuffer(stored.read(offset, length), dtype=np.uint8)
        if data.size != length:
            raise StoreCorrupt(f"{_name(source, first_chunk + chunk)}: the shard ends too early. {_REMEDY}")
        if verify:
            _check(source, first_chunk + chunk, [data[:-CRC_BYTES]], data[-CRC_BYTES:])
        rows = _part(flat, chunk, layout)
        whole = rows.view(source.dtype).reshape(spare.shape) if rows.size == layout.chunk_bytes else spare
        try:
            codec.decode(data[:-CRC_BYTES], whole)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{_name(source, first_chunk + chunk)}: {error}") from error
        if whole is spare:
            rows[:] = spare.reshape(-1).view(np.uint8)[: rows.size]


def index_range(layout: ShardLayout, num_bytes: int) -> tuple[int, int]:
    """Where the index of a shard of `num_bytes` stands: start and length."""
    length = layout.num_chunks * INDEX_ENTRY_BYTES + CRC_BYTES
    return max(0, num_bytes - length), length


def read_index(source: ShardSource, data: bytes, num_bytes: int) -> tuple[tuple[int, int], ...]:
    """Offset and length of every chunk, from the bytes at the end of a shard of `num_bytes`.

    Raises:
        StoreCorrupt: A wrong checksum, or chunks that are missing, overlap, lie outside the file or are too long.
    """
    layout = source.layout
    start, length = index_range(layout, num_bytes)
    if len(data) != length or crc32c(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise StoreCorrupt(f"{_name(source, 0)}: the index of the shard does not match its crc32c. {_REMEDY}")
    entries = np.frombuffer(data[:-CRC_BYTES], dtype="<u8").reshape(-1, 2).tolist()
    longest = COMPRESSED_BOUND * layout.chunk_bytes + HEADER_BYTES
    for chunk, (offset, size) in enumerate(entries):
        if not CRC_BYTES < size <= longest or offset + size > start:
            raise StoreCorrupt(
                f"{_name(source, chunk)}: the index places {size} bytes at {offset}, in a shard of {num_bytes} bytes. "
                f"{_REMEDY}"
            )
    for chunk, after in _overlaps(entries):
        raise StoreCorrupt(f"{_name(source, chunk)}: the index lets it overlap chunk {after}. {_REMEDY}")
    return tuple((offset, size) for offset, size in entries)


def _overlaps(entries: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    order = sorted(range(len(entries)), key=lambda chunk: entries[chunk][0])
    for chunk, after in pairwise(order):
        if entries[chunk][0] + entries[chunk][1] > entries[after][0]:
            yield chunk, after
