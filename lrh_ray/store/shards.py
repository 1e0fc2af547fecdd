"""Where every byte of a shard stands.

A shard holds all rows of one block at one site: `num_chunks` chunks of `chunk_rows` full-width rows, each followed by
its crc32c, then the index that Zarr's `sharding_indexed` codec defines (offset and length of every chunk as uint64,
then the index's own crc32c). Chunks are not compressed, so every offset is known before the first row exists: rows
may arrive in any order and a chunk is written once, at its place.

All integers are little-endian. Source: Zarr v3 core specification, `sharding_indexed` and `crc32c` codecs.
"""

from dataclasses import dataclass
from functools import cached_property

import google_crc32c
import numpy as np

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
        """The whole index with its checksum; the same for every shard of the site."""
        entries = np.empty((self.num_chunks, 2), dtype="<u8")
        entries[:, 0] = [self.chunk_offset(chunk) for chunk in range(self.num_chunks)]
        entries[:, 1] = self.chunk_bytes + CRC_BYTES
        body = entries.tobytes()
        return body + checksum(body)


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C of bytes or of a C-contiguous array's bytes."""
    raw = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
    return int(google_crc32c.value(raw))


def checksum(data: bytes | np.ndarray) -> bytes:
    """CRC-32C as the four bytes the codec appends."""
    return crc32c(data).to_bytes(CRC_BYTES, "little")
