"""The write path: any order gives the same shard, errors of the background surface, memory stays bounded."""

import contextlib
import errno
import itertools
import os
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import open_shard, write_shard

from lrh_ray.digests import digest_bytes
from lrh_ray.errors import StoreCorrupt, StoreFull
from lrh_ray.store.chunk_workers import ChunkWorkers
from lrh_ray.store.codecs import COMPRESSIONS, open_codec
from lrh_ray.store.commits import read_commit
from lrh_ray.store.objects import open_objects
from lrh_ray.store.shards import CRC_BYTES, ShardLayout, checksum, chunk_digest, index_crc32c, shard_digest
from lrh_ray.store.statistics import SiteStatistics, decode, encode, merge_all
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import make_store, truth

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [BFLOAT16, np.dtype(np.float16), np.dtype(np.float32)]


def layout_of(dtype, *, chunk_rows=8, num_chunks=6, width=10):
    return ShardLayout(chunk_rows=chunk_rows, num_chunks=num_chunks, row_bytes=width * dtype.itemsize)


def some_rows(dtype, count, width=10, seed=0):
    return (np.random.default_rng(seed).normal(size=(count, width)) * 3 + 1).astype(dtype)


def chunks_of(data, num_chunks):
    """Chunks of a shard's bytes in chunk order, through its index, checksums verified."""
    index = data[-(16 * num_chunks + CRC_BYTES) :]
    places = np.frombuffer(index[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)
    assert checksum(index[:-CRC_BYTES]) == index[-CRC_BYTES:]
    chunks = [data[offset : offset + length] for offset, length in places.tolist()]
    assert all(checksum(chunk[:-CRC_BYTES]) == chunk[-CRC_BYTES:] for chunk in chunks)
    assert sum(map(len, chunks)) + len(index) == len(data)  # nothing else, nothing twice
    return [chunk[:-CRC_BYTES] for chunk in chunks], index


def same_bits(one: SiteStatistics, other: SiteStatistics):
    return encode({"s": one}) == encode({"s": other})


@st.composite
def cuts(draw):
    count = draw(st.integers(1, 48))
    places = sorted(draw(st.sets(st.integers(1, max(1, count - 1)), max_size=9)) | {0, count})
    pieces = [slice(a, b) for a, b in itertools.pairwise(places) if a < b]
    return count, draw(st.permutations(pieces))


@given(cut=cuts(), dtype=st.sampled_from(DTYPES), compression=st.sampled_from(COMPRESSIONS))
@settings(max_examples=60, deadline=None)
def test_any_pieces_in_any_order_give_one_shard(tmp_path_factory, cut, dtype, compression):
    count, pieces = cut
    folder, rows, layout = tmp_path_factory.mktemp("s"), some_rows(dtype, count), layout_of(dtype)
    whole = write_shard(folder / "whole", layout, rows, compression=compression)
    split = write_shard(folder / "split", layout, rows, pieces, compression=compression)

    assert split[0].digest == whole[0].digest
    assert split[0].num_bytes == whole[0].num_bytes
    assert same_bits(split[1], whole[1])
    data = (folder / "split").read_bytes()
    if compression == "none":
        assert data == (folder / "whole").read_bytes()
        assert len(data) == layout.shard_bytes
        assert data.endswith(layout.index)
    chunks, index = chunks_of(data, layout.num_chunks)
    assert split[0].digest == shard_digest([chunk_digest(chunk) for chunk in chunks], index)
    assert split[0].index_crc32c == index_crc32c(index)
    padded = np.zeros((layout.num_chunks * layout.chunk_rows, 10), dtype)
    padded[:count] = rows
    for chunk, expected in zip(chunks, np.split(padded, layout.num_chunks), strict=True):
        out = np.empty_like(expected)
        open_codec(compression, dtype).decode(chunk, out)
        assert out.tobytes() == expected.tobytes()


def test_the_digest_tells_content_and_order():
    index = layout_of(BFLOAT16, num_chunks=2).index
    one, two = chunk_digest(b"1"), chunk_digest(b"2")
    digests = {shard_digest([one, two], index), shard_digest([two, one], index), shard_digest([one, one], index)}
    assert len(digests) == 3
    longer = layout_of(BFLOAT16, num_chunks=2, chunk_rows=9).index
    assert shard_digest([one, two], longer) not in digests


def test_the_caller_may_reuse_its_rows_at_once(tmp_path):
    dtype, layout = np.dtype(np.float32), layout_of(np.dtype(np.float32), chunk_rows=64, num_chunks=40, width=256)
    rows = some_rows(dtype, 64 * 40, 256)
    expected, _ = write_shard(tmp_path / "expected", layout, rows)
    with open_shard(tmp_path / "reused", layout, dtype, len(rows)) as (shard, workers, _):
        piece = np.empty((96, 256), dtype)
        for first in range(0, len(rows), 96):
            part = piece[: min(96, len(rows) - first)]
            part[:] = rows[first : first + 96]
            shard.write(first, part)
            part[:] = np.nan
        workers.drain()
        assert shard.finish().digest == expected.digest


@pytest.mark.parametrize(("offset", "count", "width"), [(-1, 2, 10), (40, 9, 10), (48, 1, 10), (0, 3, 9), (0, 3, 11)])
def test_rows_that_do_not_fit_are_refused(tmp_path, offset, count, width):
    with (
        open_shard(tmp_path / "s", layout_of(BFLOAT16), BFLOAT16, 48) as (shard, _, _),
        pytest.raises(StoreCorrupt, match="do not fit"),
    ):
        shard.write(offset, some_rows(BFLOAT16, count, width))


@given(first=st.integers(0, 40), second=st.integers(0, 40), lengths=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=40, deadline=None)
def test_rows_written_twice_are_refused_and_others_are_not(tmp_path_factory, first, second, lengths):
    one = range(first, min(first + lengths[0], 48))
    two = range(second, min(second + lengths[1], 48))
    path = tmp_path_factory.mktemp("s") / "s"
    with open_shard(path, layout_of(BFLOAT16), BFLOAT16, 48) as (shard, workers, _):
        shard.write(one.start, some_rows(BFLOAT16, len(one)))
        if set(one) & set(two):
            with pytest.raises(StoreCorrupt, match="twice"):
                shard.write(two.start, some_rows(BFLOAT16, len(two)))
            return
        shard.write(two.start, some_rows(BFLOAT16, len(two)))
        workers.drain()
        missing = 48 - len(one) - len(two)
        if missing:
            with pytest.raises(StoreCorrupt, match=f"{missing} of 48 planned rows never arrived"):
                shard.finish()


def test_memory_is_the_open_chunks_and_a_few_more(tmp_path):
    layout = layout_of(BFLOAT16, num_chunks=200)
    rows = some_rows(BFLOAT16, 1600)
    with open_shard(tmp_path / "ordered", layout, BFLOAT16, 1600) as (shard, workers, buffers):
        for first in range(0, 1600, 5):
            shard.write(first, rows[first : first + 5])
        workers.drain()
        assert buffers.num_made <= 1 + 2 + 2  # being filled, `depth` waiting, one in each thread
    with open_shard(tmp_path / "scattered", layout, BFLOAT16, 1600) as (shard, workers, buffers):
        for half in (0, 4):
            for chunk in range(200):
                shard.write(chunk * 8 + half, rows[chunk * 8 + half : chunk * 8 + half + 4])
        workers.drain()
        assert 200 <= buffers.num_made <= 205  # every chunk was open at once


class FailingDisk:
    """Writes that succeed `good` times and then meet a full disk."""

    def __init__(self, good, number=errno.ENOSPC):
        self.good, self.number, self.pwritev = good, number, os.pwritev
        self.lock = threading.Lock()

    def __call__(self, *arguments):
        with self.lock:
            self.good -= 1
            if self.good < 0:
                raise OSError(self.number, os.strerror(self.number))
        return self.pwritev(*arguments)


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("chunk-worker")]


def write_row_by_row(fake):
    with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="w") as writer:
        for site in fake.plan.sites:
            for offset, row in enumerate(truth(fake.plan, site.name, 0)):
                writer.write(site.name, offset, row[None])
        writer.commit()


@pytest.mark.parametrize("good", range(6))
@pytest.mark.timeout(30)
def test_a_full_disk_surfaces_and_leaves_no_thread(tmp_path, monkeypatch, good):
    fake = make_store(tmp_path / "store", [40, 40, 40], rows_per_block=64)
    monkeypatch.setattr("lrh_ray.store.shard_writer.os.pwritev", FailingDisk(good))
    with pytest.raises(StoreFull, match="No space left"):
        write_row_by_row(fake)
    assert not worker_threads()
    assert read_commit(open_objects(fake.root), 0) is None
    assert not list((fake.root / "staging").glob("*"))


@pytest.mark.timeout(30)
def test_the_error_comes_at_a_later_write_while_rows_keep_coming(tmp_path, monkeypatch):
    monkeypatch.setattr("lrh_ray.store.shard_writer.os.pwritev", FailingDisk(3))
    layout, row = layout_of(BFLOAT16, num_chunks=10_000), some_rows(BFLOAT16, 8)
    with open_shard(tmp_path / "s", layout, BFLOAT16, 80_000) as (shard, workers, _):
        with contextlib.suppress(StoreFull):
            for chunk in range(10_000):
                shard.write(chunk * 8, row)
        assert 3 <= chunk < 100  # at once, not at the end
        with pytest.raises(StoreFull):
            workers.drain()
    assert not worker_threads()


@pytest.mark.timeout(30)
def test_leaving_early_ends_the_threads_and_removes_the_files(tmp_path):
    fake = make_store(tmp_path / "store", [40, 40, 40], rows_per_block=64)
    with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="w") as writer:
        for site in fake.plan.sites:
            writer.write(site.name, 0, truth(fake.plan, site.name, 0)[:33])
    assert not worker_threads()
    assert not list((fake.root / "staging").glob("*"))


@pytest.mark.timeout(30)
def test_a_slow_disk_makes_the_writer_wait_and_not_grow():
    gate, done = threading.Event(), []
    workers = ChunkWorkers(threads=2, depth=3)

    def submit():
        for number in range(8):
            workers.submit(lambda: gate.wait() and None)
            done.append(number)

    submitter = threading.Thread(target=submit)
    submitter.start()
    submitter.join(timeout=0.3)
    assert len(done) == 3
    gate.set()
    submitter.join()
    workers.drain()
    workers.close()
    assert len(done) == 8


def test_statistics_of_a_block_reach_its_object(tmp_path):
    fake = make_store(tmp_path / "store", [40, 40, 40], rows_per_block=64)
    with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="w") as writer:
        for site in fake.plan.sites:
            writer.write(site.name, 0, truth(fake.plan, site.name, 0))
        assert writer.commit().committed
    objects = open_objects(fake.root)
    commit = read_commit(objects, 0)
    assert commit is not None
    found = objects.get("statistics/00000/00000000.safetensors")
    assert found is not None
    assert commit.objects["statistics"].digest == digest_bytes(found.data)
    for site in fake.plan.sites:
        statistics = decode(found.data, [site.name])[site.name]
        rows = truth(fake.plan, site.name, 0).astype(np.float64)
        np.testing.assert_allclose(statistics.moments.mean, rows.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(statistics.norms, np.linalg.norm(rows, axis=1), rtol=1e-6)


# ---- values a type cannot hold


def written(tmp_path, store_dtype, rows):
    fake = make_store(tmp_path / "store", [40, 40, 40], rows_per_block=64, dtype=store_dtype)
    count = int(fake.plan.valid_rows[0])
    with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="w") as writer:
        writer.write("final_norm", 0, np.zeros((count, 24), DTYPES[1] if store_dtype == "float16" else rows.dtype))
        writer.write("resid.0", 0, rows[:count])
        return writer.commit()


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float32)], ids=str)
def test_overflow_is_counted_apart_from_the_models_own(tmp_path, dtype):
    rows = some_rows(dtype, 40, 24)
    rows[3, 3], rows[4, 5], rows[5, 6] = 70_000, -1e30, 65_000
    with pytest.raises(StoreCorrupt, match=r"beyond 65504.0, which float16 cannot hold, by site: \{'resid.0': 2\}"):
        written(tmp_path / "a", "float16", rows)
    rows[:] = 1
    rows[0, 0], rows[1, 1], rows[2, 2] = np.inf, np.nan, 1e9
    with pytest.raises(StoreCorrupt, match=r"not finite, by site: \{'resid.0': 2\}"):
        written(tmp_path / "b", "float16", rows)
    rows[:3] = 65504 if dtype == np.float32 else 65_280
    assert written(tmp_path / "c", "float16", rows).committed


def test_rows_of_a_type_that_would_lose_silently_are_refused(tmp_path):
    for stored, given_type in ((BFLOAT16, np.float16), (BFLOAT16, np.float64), (np.dtype(np.float32), np.float64)):
        with (
            open_shard(tmp_path / f"{stored}{given_type.__name__}", layout_of(stored), stored, 48) as (shard, _, _),
            pytest.raises(StoreCorrupt, match="which takes"),
        ):
            shard.write(0, np.zeros((1, 10), given_type))


# ---- statistics against float64


def oracle(rows):
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    return mean, ((wide - mean) ** 2).sum(axis=0), np.abs(wide).max(axis=0), np.sqrt((wide**2).sum(axis=1))


def assert_right(statistics, rows):
    mean, m2, absmax, norms = oracle(rows)
    assert statistics.nonfinite == 0
    assert statistics.moments.count == len(rows)
    np.testing.assert_array_equal(statistics.moments.absmax, absmax)
    assert (np.abs(statistics.moments.mean - mean) <= 1e-6 * absmax).all()
    assert (np.abs(statistics.moments.m2 - m2) <= 1e-6 * m2).all()
    np.testing.assert_allclose(statistics.norms, norms.astype(np.float32), rtol=1e-6)


def make_rows(kind, dtype, count, width):
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(count, width)) * rng.lognormal(size=width) + rng.normal(size=width)
    if kind == "massive":
        rows[:, 2] = 2.5e4 + 300 * rng.normal(size=count)
        rows[rng.integers(count), 3] = 2.5e4
        rows[::16, 4] = 2.5e4  # exactly the rows from which the shift is taken
    if kind == "constant":
        rows[:, 1], rows[:, 2], rows[:, 3] = 0.1, 0.0, -2.5e4
    if kind == "extreme":
        scale = 2.0 ** rng.integers(-100, 100, size=width) if dtype != np.float16 else 2.0**-14
        rows *= scale
    if kind == "periodic":
        rows[:, 1] = np.arange(count) % 16
    return rows.astype(dtype)


@pytest.mark.parametrize("kind", ["plain", "massive", "constant", "extreme", "periodic"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("count", "chunk_rows", "width"), [(2000, 1024, 40), (150, 128, 9000), (61, 16, 7), (1, 8, 8)])
def test_statistics_agree_with_float64(tmp_path, kind, dtype, count, chunk_rows, width):
    rows = make_rows(kind, dtype, count, width)
    layout = layout_of(dtype, chunk_rows=chunk_rows, num_chunks=-(-count // chunk_rows) + 1, width=width)
    _, statistics = write_shard(tmp_path / "s", layout, rows)
    assert_right(statistics, rows)
    if kind == "constant":
        assert not statistics.moments.m2[1:4].any()


def test_merged_blocks_agree_with_float64(tmp_path):
    rows = make_rows("massive", np.dtype(np.float32), 900, 12)
    layout = layout_of(rows.dtype, chunk_rows=64, num_chunks=8, width=12)
    parts = [write_shard(tmp_path / str(i), layout, part)[1] for i, part in enumerate(np.array_split(rows, 3))]
    merged = merge_all(part.moments for part in parts)
    mean, m2, _, _ = oracle(rows)
    assert (np.abs(merged.m2 - m2) <= 1e-6 * m2).all()
    assert (np.abs(merged.mean - mean) <= 1e-6 * np.abs(mean).max()).all()


@given(
    places=st.sets(st.tuples(st.integers(0, 39), st.integers(0, 9)), max_size=30),
    kind=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=40, deadline=None)
def test_values_that_are_not_finite_are_counted_exactly_without_warnings(tmp_path_factory, places, kind, dtype):
    rows = some_rows(dtype, 40)
    for row, column in places:
        rows[row, column] = kind
    _, statistics = write_shard(tmp_path_factory.mktemp("s") / "s", layout_of(dtype), rows)
    assert statistics.nonfinite == len(places)
