"""Lossless codecs of chunks: what stands in a shard between the rows and their checksum.

    codec = open_codec("zstd1", np.dtype("float16"))
    data = codec.encode(rows)          # [rows, width], C-contiguous
    codec.decode(data, out)            # the same bits

Each codec writes exactly what zarr-python writes for `zarr_codecs(name, dtype)`, so a store needs no package of ours:

    none     bytes (little-endian)                         every Zarr v3 reader
    zstd1    bytes, zstd level 1                           every Zarr v3 reader
    lz4bit   bytes, blosc: lz4 after a bit shuffle         every Zarr v3 reader
    pcodec8  numcodecs.pcodec level 8                      zarr-python with numcodecs and pcodec

bfloat16 is compressed as its bits. For zstd and blosc, which see bytes, that changes nothing. pcodec sees numbers and
knows no bfloat16, and zarr-python would convert the uint16 it gives back by VALUE into an array declared bfloat16. A
pcodec8 store of bfloat16 is therefore declared uint16 (`declared_dtype`), whose bits readers view as bfloat16.

What can go wrong: bytes that do not decode to exactly one chunk are `StoreCorrupt`, found before anything larger than
the chunk is allocated; pcodec8 without its package is `DependencyMissing`.
"""

import sys
import warnings
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args, runtime_checkable

import ml_dtypes
import numpy as np
from numcodecs import blosc, zstd  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, BytesCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from lrh_ray.errors import DependencyMissing, StoreCorrupt, UnknownName

Compression: TypeAlias = Literal["none", "zstd1", "lz4bit", "pcodec8"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
Encoded: TypeAlias = bytes | np.ndarray
"""Bytes of a chunk: `bytes`, or a one-dimensional uint8 array."""

ZSTD_LEVEL = 1
LZ4_LEVEL = 5
PCODEC_LEVEL = 8
BLOSC_HEADER_BYTES = 16


@runtime_checkable
class Codec(Protocol):
    """Both directions of one codec. Holds no state between calls, so threads may share it."""

    def encode(self, chunk: np.ndarray) -> Encoded:
        """Bytes of a C-contiguous [rows, width] chunk; may be a view of it."""
        ...

    def decode(self, data: Encoded, out: np.ndarray) -> None:
        """Fill a C-contiguous chunk.

        Raises:
            StoreCorrupt: The bytes do not decode, or to another size.
        """
        ...


def open_codec(name: str, dtype: np.dtype) -> Codec:
    """The codec of a store's chunks.

    Raises:
        UnknownName: No such codec.
        DependencyMissing: pcodec8 without its package.
    """
    if name == "none":
        return Plain()
    if name == "zstd1":
        return Zstd1()
    if name == "lz4bit":
        return Lz4Bit()
    if name == "pcodec8":
        return PCodec8(dtype)
    raise UnknownName(f"Unknown compression {name!r}; known are {', '.join(COMPRESSIONS)}.")


def declared_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """The data type under which Zarr metadata declares the rows: their own, except bfloat16 under pcodec8."""
    return np.dtype(np.uint16) if name == "pcodec8" and dtype == ml_dtypes.bfloat16 else dtype


def zarr_codecs(name: str, dtype: np.dtype) -> list[Any]:
    """zarr-python's codecs for the same bytes, array-to-bytes first; the checksum codec goes after them."""
    if name == "none":
        return [BytesCodec()]
    if name == "zstd1":
        return [BytesCodec(), ZstdCodec(level=ZSTD_LEVEL, checksum=False)]
    if name == "lz4bit":
        return [
            BytesCodec(),
            BloscCodec(typesize=dtype.itemsize, cname="lz4", clevel=LZ4_LEVEL, shuffle="bitshuffle", blocksize=0),
        ]
    if name == "pcodec8":
        return [_zarr_pcodec()]
    raise UnknownName(f"Unknown compression {name!r}; known are {', '.join(COMPRESSIONS)}.")


class Plain:
    """The rows' own bytes."""

    def encode(self, chunk: np.ndarray) -> Encoded:
        return _bytes_of(chunk)

    def decode(self, data: Encoded, out: np.ndarray) -> None:
        _check_size(len(data), out)
        _bytes_of(out)[:] = np.frombuffer(data, dtype=np.uint8)


class Zstd1:
    """Zstandard at level 1."""

    def encode(self, chunk: np.ndarray) -> Encoded:
        return cast(bytes, zstd.compress(_bytes_of(chunk), ZSTD_LEVEL))

    def decode(self, data: Encoded, out: np.ndarray) -> None:
        _check_size(_zstd_content_size(data), out)
        try:
            zstd.decompress(data, _bytes_of(out))
        except (RuntimeError, ValueError) as error:
            raise _broken("zstd", error) from error


class Lz4Bit:
    """Blosc: bits of the same place together, then lz4."""

    def encode(self, chunk: np.ndarray) -> Encoded:
        bits = chunk.reshape(-1).view(f"u{chunk.itemsize}")  # blosc takes the width of its shuffle from the array
        return cast(bytes, blosc.compress(bits, b"lz4", LZ4_LEVEL, blosc.BITSHUFFLE, 0))

    def decode(self, data: Encoded, out: np.ndarray) -> None:
        if len(data) < BLOSC_HEADER_BYTES:
            raise StoreCorrupt(f"A blosc chunk of {len(data)} bytes is shorter than its header. {REMEDY}")
        header = np.frombuffer(data, dtype="<u4", count=4)  # versions and flags, bytes plain, block size, bytes encoded
        _check_size(int(header[1]), out)
        if int(header[3]) != len(data):
            raise StoreCorrupt(f"A blosc chunk declares {header[3]} bytes and has {len(data)}. {REMEDY}")
        try:
            blosc.decompress(data, _bytes_of(out))
        except (RuntimeError, ValueError) as error:
            raise _broken("blosc", error) from error


class PCodec8:
    """pcodec at level 8: numbers split into bins and offsets; the smallest, and the slowest to write."""

    def __init__(self, dtype: np.dtype) -> None:
        self._numbers = declared_dtype("pcodec8", dtype)
        self._codec, self._standalone = _pcodec()

    def encode(self, chunk: np.ndarray) -> Encoded:
        return cast(bytes, self._codec.encode(chunk.reshape(-1).view(self._numbers)))

    def decode(self, data: Encoded, out: np.ndarray) -> None:
        raw = data if isinstance(data, bytes) else data.tobytes()
        try:
            progress = self._standalone.simple_decompress_into(raw, out.reshape(-1).view(self._numbers))
        except RuntimeError as error:
            raise _broken("pcodec", error) from error
        if not progress.finished or progress.n_processed != out.size:
            raise StoreCorrupt(f"A pcodec chunk does not hold {out.size} numbers. {REMEDY}")


REMEDY = "Run `lrh verify STORE --repair`, then the command it names; only damaged blocks are computed again."


def _broken(name: str, error: Exception) -> StoreCorrupt:
    return StoreCorrupt(f"A chunk does not decode as {name} ({error}). {REMEDY}")


def _check_size(num_bytes: int, out: np.ndarray) -> None:
    if num_bytes != out.nbytes:
        raise StoreCorrupt(f"A chunk decodes to {num_bytes} bytes where {out.nbytes} belong. {REMEDY}")


def _zstd_content_size(data: Encoded) -> int:
    """Bytes a frame declares, or -1; numcodecs allocates that much, or fills less than the chunk, without asking.

    Source: RFC 8878, section 3.1.1.1.
    """
    head = bytes(data[:18])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    kind, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    length = (single, 2, 4, 8)[kind]
    start = 5 + (1 - single) + (0, 1, 2, 4)[dictionary]
    size = int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
    return size if length else -1


def _bytes_of(chunk: np.ndarray) -> np.ndarray:
    """A chunk's bytes in place; Zarr's are little-endian."""
    if sys.byteorder != "little" or not chunk.flags.c_contiguous:
        raise ValueError("chunks are C-contiguous and little-endian")
    return chunk.reshape(-1).view(np.uint8)


def _pcodec() -> tuple[Any, Any]:
    try:
        from numcodecs.pcodec import PCodec  # type: ignore[import-untyped]
        from pcodec import standalone
    except ImportError as error:
        raise DependencyMissing(
            "compression: pcodec8 needs the package pcodec: pip install pcodec, or choose zstd1."
        ) from error
    return PCodec(level=PCODEC_LEVEL), standalone


def _zarr_pcodec() -> Any:
    _pcodec()
    from zarr.codecs.numcodecs import PCodec

    with warnings.catch_warnings():
        # pcodec is not in the Zarr v3 specification; docs/store-format.md says which readers know it.
        warnings.simplefilter("ignore", ZarrUserWarning)
        return PCodec(level=PCODEC_LEVEL)
