"""Reading a shard: the rows that were written, for any geometry and place; damage is found and located."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.store.codecs import open_codec
from lrh_ray.store.objects import LocalObjects
from lrh_ray.store.remote import RemoteObjects
from lrh_ray.store.shard_reader import ShardSource, read_rows
from lrh_ray.store.shards import CRC_BYTES, ShardLayout, checksum, shard_index

BLOCK = 3
DTYPES = [np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)]
CODECS = ["none", "zstd1", "lz4bit"]
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shard_bytes(rows, chunk_rows, compression, order=None):
    """A shard as the format describes it, written without the package's writer."""
    codec = open_codec(compression, rows.dtype)
    chunks = [rows[first : first + chunk_rows] for first in range(0, len(rows), chunk_rows)]
    places, data = np.zeros((len(chunks), 2), dtype="<u8"), b""
    for chunk in range(len(chunks)) if order is None else order:
        encoded = bytes(np.frombuffer(codec.encode(chunks[chunk]), np.uint8))
        places[chunk] = len(data), len(encoded) + CRC_BYTES
        data += encoded + checksum(encoded)
    return data + shard_index(places)


def make_source(folder, rows, chunk_rows, compression="none", *, remote=False, data=None, keys=("a/shard",)):
    data = shard_bytes(rows, chunk_rows, compression) if data is None else data
    if remote:
        store = MemoryStore()
        store.put(keys[-1], data)
        objects = RemoteObjects("memory", store)
    else:
        objects = LocalObjects(folder)
        path = folder / keys[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layout = ShardLayout(
        chunk_rows=chunk_rows, num_chunks=len(rows) // chunk_rows, row_bytes=rows.shape[1] * rows.itemsize
    )
    return ShardSource(
        objects=objects, keys=keys, layout=layout, dtype=rows.dtype, block=BLOCK, site="s", compression=compression
    )


def random_rows(num, width, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=(num, width)).astype(dtype)


@QUICK
@given(
    data=st.data(),
    chunk_rows=st.integers(1, 5),
    num_chunks=st.integers(1, 6),
    width=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(CODECS),
    remote=st.booleans(),
    verify=st.booleans(),
)
def test_any_rows_are_those_written(tmp_path, data, chunk_rows, num_chunks, width, dtype, compression, remote, verify):
    rows = random_rows(chunk_rows * num_chunks, width, dtype)
    order = data.draw(st.permutations(range(num_chunks))) if compression != "none" else None
    source = make_source(
        tmp_path, rows, chunk_rows, compression, remote=remote, data=shard_bytes(rows, chunk_rows, compression, order)
    )
    first_chunk = data.draw(st.integers(0, num_chunks))
    first = first_chunk * chunk_rows
    num = data.draw(st.integers(0, len(rows) - first))
    out = np.full((num, width), 7, dtype=dtype)
    read_rows(source, out, first_chunk=first_chunk, verify=verify)
    assert out.tobytes() == rows[first : first + num].tobytes()


@pytest.mark.parametrize("verify", [True, False])
def test_more_chunks_than_one_system_call_takes(tmp_path, verify):
    rows = random_rows(1300, 3, np.float32)
    out = np.empty_like(rows)
    read_rows(make_source(tmp_path, rows, 1), out, verify=verify)
    assert (out == rows).all()


@QUICK
@given(data=st.data(), compression=st.sampled_from(CODECS), remote=st.booleans())
def test_a_changed_byte_is_found_and_located(tmp_path, data, compression, remote):
    rows = random_rows(12, 5, np.float16)
    whole = bytearray(shard_bytes(rows, 3, compression))
    index = np.frombuffer(bytes(whole[-(4 * 16 + CRC_BYTES) : -CRC_BYTES]), "<u8").reshape(-1, 2)
    chunk = data.draw(st.integers(0, 3))
    whole[int(index[chunk, 0]) + data.draw(st.integers(0, int(index[chunk, 1]) - 1))] ^= 1 << data.draw(
        st.integers(0, 7)
    )
    source = make_source(tmp_path, rows, 3, compression, remote=remote, data=bytes(whole))
    first = BLOCK * 12 + chunk * 3
    with pytest.raises(StoreCorrupt, match=rf"Block 3, site 's', chunk {chunk} \(rows {first}\.\.{first + 2}\)"):
        read_rows(source, np.empty_like(rows))
    if chunk:
        out = np.empty_like(rows[: chunk * 3])
        read_rows(source, out)  # chunks before it are sound
        assert (out == rows[: chunk * 3]).all()


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("compression", CODECS)
def test_padding_of_the_last_chunk_is_checked_too(tmp_path, compression, remote):
    rows = random_rows(6, 50, np.float32)
    whole = bytearray(shard_bytes(rows, 3, compression))
    whole[len(whole) - (2 * 16 + CRC_BYTES) - CRC_BYTES - 1] ^= 1  # last byte of the last chunk
    source = make_source(tmp_path, rows, 3, compression, remote=remote, data=bytes(whole))
    with pytest.raises(StoreCorrupt, match="chunk 1"):
        read_rows(source, np.empty_like(rows[:4]))


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("compression", CODECS)
def test_another_size_is_refused(tmp_path, compression, remote):
    rows = random_rows(12, 5, np.float16)
    whole = shard_bytes(rows, 3, compression)
    for damaged in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\0"):
        source = make_source(tmp_path, rows, 3, compression, remote=remote, data=damaged)
        with pytest.raises(StoreCorrupt, match="Block 3, site 's'"):
            read_rows(source, np.empty_like(rows), verify=False)


@pytest.mark.parametrize("remote", [False, True])
def test_an_index_is_not_believed(tmp_path, remote):
    rows = random_rows(6, 5, np.float16)
    whole = shard_bytes(rows, 3, "zstd1")
    tail = 2 * 16 + CRC_BYTES
    places = np.frombuffer(whole[-tail:-CRC_BYTES], "<u8").reshape(2, 2)
    end = len(whole) - tail
    for entry in ((0, 0), (0, 4), (2**64 - 1, 2**64 - 1), (end - 5, 6), (1, end), (2**63, 10), (0, 2**40)):
        hostile = places.copy()
        hostile[1] = entry
        source = make_source(tmp_path, rows, 3, "zstd1", remote=remote, data=whole[:-tail] + shard_index(hostile))
        with pytest.raises(StoreCorrupt, match=r"index|crc32c"):
            read_rows(source, np.empty_like(rows))
    broken = bytearray(whole)
    broken[-1] ^= 1
    with pytest.raises(StoreCorrupt, match="index"):
        read_rows(make_source(tmp_path, rows, 3, "zstd1", remote=remote, data=bytes(broken)), np.empty_like(rows))


def test_an_oversized_chunk_is_refused_before_it_is_read(tmp_path):
    rows = random_rows(2, 4, np.float32)
    body = bytes(1 << 20)  # one chunk of a megabyte where 16 bytes belong
    data = body + checksum(body) + b"x" * 9
    places = np.array([[0, len(body) + CRC_BYTES], [len(body) + CRC_BYTES, 9]])
    source = make_source(tmp_path, rows, 1, "zstd1", data=data + shard_index(places))
    with pytest.raises(StoreCorrupt, match="the index places 1048580 bytes at 0"):
        read_rows(source, np.empty_like(rows))


@pytest.mark.parametrize("remote", [False, True])
def test_without_verification_checksums_are_not_read(tmp_path, remote):
    rows = random_rows(4, 4, np.float32)
    whole = bytearray(shard_bytes(rows, 2, "none"))
    whole[3] ^= 64
    out = np.empty_like(rows)
    read_rows(make_source(tmp_path, rows, 2, remote=remote, data=bytes(whole)), out, verify=False)
    assert (out != rows).sum() == 1


@pytest.mark.parametrize("remote", [False, True])
def test_a_missing_shard_names_where_it_was_looked_for(tmp_path, remote):
    rows = random_rows(4, 4, np.float32)
    source = make_source(tmp_path, rows, 2, remote=remote)
    gone = ShardSource(**{**{name: getattr(source, name) for name in source.__slots__}, "keys": ("b/one", "b/two")})
    with pytest.raises(StoreCorrupt, match="missing at b/one and b/two"):
        read_rows(gone, np.empty_like(rows))


def test_a_staged_shard_comes_before_the_published_one(tmp_path):
    old, new = random_rows(4, 4, np.float32, 1), random_rows(4, 4, np.float32, 2)
    make_source(tmp_path, old, 2, keys=("final",))
    source = make_source(tmp_path, new, 2, keys=("staged",))
    both = ShardSource(**{**{name: getattr(source, name) for name in source.__slots__}, "keys": ("staged", "final")})
    out = np.empty_like(new)
    read_rows(both, out)
    assert (out == new).all()
    (tmp_path / "staged").unlink()
    read_rows(both, out)
    assert (out == old).all()


def test_symbolic_links_are_not_followed(tmp_path):
    rows = random_rows(4, 4, np.float32)
    source = make_source(tmp_path / "store", rows, 2)
    path = tmp_path / "store" / "a" / "shard"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises((PathUnusable, StoreCorrupt)):
        read_rows(source, np.empty_like(rows))


def test_the_destination_must_fit(tmp_path):
    rows = random_rows(4, 4, np.float32)
    source = make_source(tmp_path, rows, 2)
    for out, first_chunk in (
        (np.empty((4, 4), np.float16), 0),
        (np.empty((4, 3), np.float32), 0),
        (np.empty((4, 8), np.float32)[:, ::2], 0),
        (np.empty((5, 4), np.float32), 0),
        (np.empty((3, 4), np.float32), 1),
        (np.empty((1, 4), np.float32), -1),
    ):
        with pytest.raises(ValueError):
            read_rows(source, out, first_chunk=first_chunk)
