"""The ring and the joining of ranks, without an engine: whatever is sent arrives, in order, or is an error."""

import threading

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.errors import EngineFailed
from lrh_ray.models.vllm.replica import Ended, ReplicaRings, Window
from lrh_ray.models.vllm.ring import Kind, RingReader, RingShape, RingWriter, create_ring, fit_ring, tokens_crc32c
from lrh_ray.models.vllm.share import Share, ShareOptions, columns_of, ring_path, share_options

CPU = torch.device("cpu")
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def never(seconds):
    assert seconds < 20


def replica(folder, *, sites, width, ranks, dtype="float32", window_rows=3, slots=2):
    shape = RingShape(
        sites=sites,
        width=-(-width // ranks),
        itemsize=np.dtype(DTYPES[dtype]).itemsize,
        window_rows=window_rows,
        slots=slots,
    )
    options = ShareOptions(folder=str(folder), width=width, ranks=ranks, dtype=dtype, shape=shape)
    for rank in range(ranks):
        create_ring(ring_path(folder, rank), shape)
    shares = [Share(share_options(options.plain()), rank, CPU) for rank in range(ranks)]
    readers = [RingReader(ring_path(folder, rank), shape) for rank in range(ranks)]
    rings = ReplicaRings(readers, sites=sites, window_rows=window_rows, dtype=np.dtype(DTYPES[dtype]))
    return shares, rings


def send_all(share, requests, broken=()):
    """What a rank does with requests of [site, row, feature]; `broken` are (request, first) that cannot be gathered."""
    for request, rows in requests.items():
        for first in range(0, rows.shape[1], share.window_rows):
            part = rows[:, first : first + share.window_rows]

            def gather(columns, part=part, first=first, request=request):
                if (request, first) in broken:
                    raise OSError("no such window")
                return part[:, :, columns]

            share.send(request=request, first=first, token_ids=np.arange(first, first + part.shape[1]), gather=gather)
        share.end(request)


def collect(rings, requests):
    got, failures = {}, {}
    for event in rings.events(len(requests), never):
        match event:
            case Window():
                assert event.tokens_crc32c == tokens_crc32c(np.arange(event.first, event.first + event.rows.shape[1]))
                got.setdefault(event.request, {})[event.first] = event.rows.copy()
            case Ended():
                failures[event.request] = event.failure
    return {r: np.concatenate([p[at] for at in sorted(p)], axis=1) for r, p in got.items()}, failures


@settings(max_examples=40)
@given(data=st.data())
def test_rows_of_any_shape_arrive_whole_from_any_number_of_ranks(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ring")
    sites, width, ranks = (data.draw(st.integers(1, high)) for high in (3, 9, 3))
    width = max(width, ranks)
    dtype = data.draw(st.sampled_from(sorted(DTYPES)))
    lengths = data.draw(st.lists(st.integers(1, 11), min_size=1, max_size=5))
    requests = {i: torch.randn(sites, n, width).to(getattr(torch, dtype)) for i, n in enumerate(lengths)}
    shares, rings = replica(folder, sites=sites, width=width, ranks=ranks, dtype=dtype)
    threads = [threading.Thread(target=send_all, args=(share, requests)) for share in shares]
    for thread in threads:
        thread.start()
    got, failures = collect(rings, requests)
    for thread in threads:
        thread.join(20)
    assert failures == dict.fromkeys(requests)
    for request, rows in requests.items():
        assert np.array_equal(got[request].astype(np.float64), rows.double().numpy())


@settings(max_examples=25)
@given(data=st.data())
def test_a_window_that_fails_on_any_rank_voids_its_request_and_no_other(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ring")
    requests = {
        i: torch.randn(2, n, 6) for i, n in enumerate(data.draw(st.lists(st.integers(1, 8), min_size=2, max_size=4)))
    }
    bad_rank, bad = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(sorted(requests)))
    first = data.draw(st.sampled_from(range(0, requests[bad].shape[1], 3)))
    shares, rings = replica(folder, sites=2, width=6, ranks=2)
    threads = [
        threading.Thread(target=send_all, args=(share, requests, {(bad, first)} if rank == bad_rank else ()))
        for rank, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    got, failures = collect(rings, requests)
    for thread in threads:
        thread.join(20)
    assert {request for request, reason in failures.items() if reason} == {bad}
    assert f"rank {bad_rank}" in failures[bad]
    assert "no such window" in failures[bad]
    for request in set(requests) - {bad}:
        assert np.array_equal(got[request], requests[request].numpy())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_never_become_rows(tmp_path, value):
    (share,), rings = replica(tmp_path, sites=1, width=4, ranks=1)
    rows = torch.zeros(1, 2, 4)
    rows[0, 1, 3] = value
    send_all(share, {5: rows})
    got, failures = collect(rings, [5])
    assert got == {}
    assert "rows 0 to 1 of a document: EngineFailed: values are not finite" in failures[5]


def test_a_bit_that_flips_anywhere_in_a_window_is_an_error(tmp_path):
    shape = RingShape(sites=1, width=2, itemsize=4, window_rows=2, slots=2)
    for bit in (0, 8 * 8, 8 * 20, 8 * 35, 8 * 64, 8 * 79 + 7):
        path = tmp_path / f"flip{bit}"
        create_ring(path, shape)
        writer, reader = RingWriter(path, shape), RingReader(path, shape)
        writer.slot()[:16] = 7
        writer.publish(Kind.ROWS, request=1, rows=2, num_bytes=16)
        assert reader.peek().rows == 2
        writer.memory[128 + bit // 8] ^= 1 << bit % 8
        with pytest.raises(EngineFailed, match="does not match its crc32c"):
            reader.peek()


def test_a_full_ring_holds_the_writer_back_and_gives_up_in_the_end(tmp_path):
    shape = RingShape(sites=1, width=1, itemsize=4, window_rows=1, slots=2)
    create_ring(tmp_path / "ring", shape)
    writer, reader = RingWriter(tmp_path / "ring", shape), RingReader(tmp_path / "ring", shape)
    for request in range(2):
        writer.slot()
        writer.publish(Kind.END, request=request)
    with pytest.raises(EngineFailed, match=r"ring of 2 windows became free in 0\.05 s"):
        writer.slot(patience_s=0.05)
    assert reader.peek().request == 0  # nothing was overwritten
    reader.release()
    writer.slot(patience_s=0.05)


def test_ranks_that_disagree_are_an_error(tmp_path):
    shares, rings = replica(tmp_path, sites=1, width=4, ranks=2)
    send_all(shares[0], {0: torch.zeros(1, 2, 4)})
    send_all(shares[1], {1: torch.zeros(1, 2, 4)})
    with pytest.raises(EngineFailed, match="sent different windows"):
        collect(rings, [0])


@given(width=st.integers(1, 100), ranks=st.integers(1, 9))
def test_the_shares_of_the_ranks_are_every_column_once(width, ranks):
    columns = [columns_of(rank, width=width, ranks=ranks) for rank in range(ranks)]
    assert [c for part in columns for c in range(width)[part]] == list(range(width))
    assert max(part.stop - part.start for part in columns) <= -(-width // ranks)


@given(
    num_bytes=st.integers(1, 1 << 30),
    sites=st.integers(1, 90),
    width=st.integers(1, 9000),
    longest=st.integers(1, 1 << 17),
)
def test_a_ring_keeps_to_its_bytes_and_moves_at_least_a_row(num_bytes, sites, width, longest):
    shape = fit_ring(num_bytes=num_bytes, sites=sites, width=width, itemsize=2, longest=longest)
    assert 1 <= shape.window_rows <= longest
    assert shape.slots >= 2
    assert shape.slots == 2 or shape.slots * shape.payload_bytes <= num_bytes
