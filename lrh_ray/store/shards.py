"""Where every byte of a shard stands, and what it is checked against.

A shard holds all rows of one block at one site: `num_chunks` chunks of `chunk_rows` full-width rows, each followed by
its crc32c, then the index that Zarr's `sharding_indexed` codec defines (offset and length of every chunk as uint64,
then the index's own crc32c). Without compression every offset is known before the first row exists (`ShardLayout`):
rows may arrive in any order and a chunk is written once, at its place. Compressed chunks stand in the order in which
they were finished, without gaps, and only the index tells where.

A shard's digest is BLAKE3 over the digests of its chunks, in chunk order, followed by the lengths in its index. So it
is computed while each chunk is in the cache, in any order, and a reader can check one chunk without the others. Offsets
stay out of it: two runs that finish compressed chunks in another order hold the same content. The commit record keeps
the index's own checksum beside the digest.

All integers are little-endian. Source: Zarr v3 core specification, `sharding_indexed` and `crc32c` codecs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import crc32c as hardware
import numpy as np
from blake3 import blake3

from lrh_ray.digests import digest_bytes

CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """Geometry of every shard of one site."""

    chunk_rows: int
    num_chunks: int
    row_bytes: int

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk without its checksum."""
        return self.chunk_rows * self.row_bytes

    @property
    def index_offset(self) -> int:
        return self.num_chunks * (self.chunk_bytes + CRC_BYTES)

    @property
    def shard_bytes(self) -> int:
        return self.index_offset + self.num_chunks * INDEX_ENTRY_BYTES + CRC_BYTES

    def chunk_offset(self, chunk: int) -> int:
        return chunk * (self.chunk_bytes + CRC_BYTES)

    @cached_property
    def index(self) -> bytes:
        """The whole index of an uncompressed shard with its checksum; the same for every shard of the site."""
        places = np.empty((self.num_chunks, 2), dtype="<u8")
        places[:, 0] = [self.chunk_offset(chunk) for chunk in range(self.num_chunks)]
        places[:, 1] = self.chunk_bytes + CRC_BYTES
        return shard_index(places)


def shard_index(places: np.ndarray) -> bytes:
    """The index of a shard whose chunks stand at `places` ([chunks, 2]: offset, length with checksum)."""
    body = places.astype("<u8").tobytes()
    return body + checksum(body)


def index_crc32c(index: bytes) -> int:
    """The checksum that an index ends with, for the commit record."""
    return int.from_bytes(index[-CRC_BYTES:], "little")


def chunk_digest(data: bytes | np.ndarray) -> bytes:
    """32 bytes of BLAKE3 over a chunk as it is stored, without its checksum."""
    return blake3(data if isinstance(data, bytes) else _raw(data).data).digest()


def shard_digest(chunk_digests: Sequence[bytes], index: bytes) -> str:
    """Digest of a whole shard, from the digests of its chunks in chunk order and its index with checksum."""
    lengths = np.frombuffer(index[:-CRC_BYTES], dtype="<u8")[1::2]
    return digest_bytes(b"".join(chunk_digests) + lengths.tobytes())


def crc32c(data: bytes | np.ndarray, before: int = 0) -> int:
    """CRC-32C of bytes or of a C-contiguous array's bytes, continued from that of the bytes before them.

    This package computes it without the interpreter's lock and twice as fast as the one that zarr uses.
    """
    return hardware.crc32c(data if isinstance(data, bytes) else _raw(data).data, before)


def _raw(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1).view(np.uint8)


def checksum(data: bytes | np.ndarray) -> bytes:
    """CRC-32C as the four bytes the codec appends."""
    return crc32c(data).to_bytes(CRC_BYTES, "little")
