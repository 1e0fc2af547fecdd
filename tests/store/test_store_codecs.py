"""Codecs: our bytes are what zarr-python and TensorStore read, and damage never passes or allocates."""

import warnings

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import write_shard
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from lrh_ray.errors import StoreCorrupt, UnknownName
from lrh_ray.store.bfloat16 import BFloat16
from lrh_ray.store.codecs import COMPRESSIONS, declared_dtype, open_codec, zarr_codecs
from lrh_ray.store.shards import ShardLayout

DTYPES = [np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)]
CHUNK_ROWS, CHUNKS, WIDTH = 8, 3, 24


def some_rows(dtype, count=CHUNK_ROWS * CHUNKS, seed=0):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(dtype)


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def make_array(folder, name, dtype, data_type):
    """A Zarr array of two shards, made by zarr-python alone; the second shard is for us to write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        return zarr.create_array(
            folder,
            shape=(2 * CHUNK_ROWS * CHUNKS, WIDTH),
            dtype=data_type,
            chunks=(CHUNK_ROWS * CHUNKS, WIDTH),
            serializer=ShardingCodec(
                chunk_shape=(CHUNK_ROWS, WIDTH),
                codecs=[*zarr_codecs(name, dtype), Crc32cCodec()],
                index_codecs=[BytesCodec(), Crc32cCodec()],
                index_location="end",
            ),
            filters=None,
            compressors=None,
            fill_value=0,
            config={"write_empty_chunks": True},
        )


def write_second_shard(folder, name, dtype, rows):
    layout = ShardLayout(chunk_rows=CHUNK_ROWS, num_chunks=CHUNKS, row_bytes=WIDTH * dtype.itemsize)
    write_shard(folder / "c" / "1" / "0", layout, rows, compression=name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_plain_zarr_reads_what_we_write_and_we_what_it_writes(tmp_path, name, dtype):
    data_type = BFloat16() if declared_dtype(name, dtype) == ml_dtypes.bfloat16 else declared_dtype(name, dtype)
    array = make_array(tmp_path / "a", name, dtype, data_type)
    ours, theirs = some_rows(dtype, CHUNK_ROWS * CHUNKS - 3), some_rows(dtype, seed=1)
    (tmp_path / "a" / "c" / "1").mkdir(parents=True)
    write_second_shard(tmp_path / "a", name, dtype, ours)
    array[: len(theirs)] = theirs.view(declared_dtype(name, dtype))

    found = bits(np.asarray(array[len(theirs) :]))
    np.testing.assert_array_equal(found[: len(ours)], bits(ours))
    assert not found[len(ours) :].any()  # padding
    again = tmp_path / "again"
    layout = ShardLayout(chunk_rows=CHUNK_ROWS, num_chunks=CHUNKS, row_bytes=WIDTH * dtype.itemsize)
    write_shard(again, layout, theirs, compression=name)
    their_file = (tmp_path / "a" / "c" / "0" / "0").read_bytes()
    assert len(again.read_bytes()) == len(their_file)  # the same bytes per chunk, perhaps in another order


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["none", "zstd1", "lz4bit"])
def test_tensorstore_reads_what_we_write(tmp_path, name, dtype):
    data_type = BFloat16() if dtype == ml_dtypes.bfloat16 else dtype
    make_array(tmp_path / "a", name, dtype, data_type)
    (tmp_path / "a" / "c" / "1").mkdir(parents=True)
    rows = some_rows(dtype)
    write_second_shard(tmp_path / "a", name, dtype, rows)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/a/"}}
    array = tensorstore.open(spec, open=True).result()
    np.testing.assert_array_equal(bits(array[len(rows) :].read().result()), bits(rows))


@given(
    data=st.binary(min_size=64, max_size=64),
    name=st.sampled_from(COMPRESSIONS),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=200, deadline=None)
def test_any_bits_come_back(data, name, dtype):
    chunk = np.frombuffer(data, dtype=dtype).reshape(4, -1)
    codec = open_codec(name, dtype)
    out = np.zeros_like(chunk)
    codec.decode(codec.encode(chunk), out)
    np.testing.assert_array_equal(bits(out), bits(chunk))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_chunk_of_another_size_is_refused(name, dtype):
    codec = open_codec(name, dtype)
    encoded = codec.encode(some_rows(dtype))
    for rows in (len(some_rows(dtype)) - 1, len(some_rows(dtype)) + 1):
        with pytest.raises(StoreCorrupt):
            codec.decode(encoded, np.zeros((rows, WIDTH), dtype))


@given(cut=st.integers(0, 400), name=st.sampled_from(COMPRESSIONS), garbage=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_truncated_and_foreign_bytes_are_refused(cut, name, garbage):
    codec, out = open_codec(name, np.dtype(np.float16)), np.zeros((8, WIDTH), np.float16)
    encoded = bytes(codec.encode(some_rows(np.float16, 8)))
    for data in (encoded[: min(cut, len(encoded) - 1)], garbage):
        with pytest.raises(StoreCorrupt):
            codec.decode(data, out)


def test_a_declared_terabyte_is_refused_before_it_is_allocated():
    out = np.zeros((8, WIDTH), np.float16)
    bomb = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(StoreCorrupt, match=str(1 << 40)):
        open_codec("zstd1", np.dtype(np.float16)).decode(bomb, out)


def test_an_unknown_codec_names_the_known_ones():
    for make in (open_codec, zarr_codecs):
        with pytest.raises(UnknownName, match="none, zstd1, lz4bit, pcodec8"):
            make("gzip", np.dtype(np.float16))
