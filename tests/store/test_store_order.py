"""The order of an epoch and who gets which of it: arithmetic, held against its laws without reading a row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from loader_stores import flat

from lrh_ray.store.deal import BatchDeal, WindowDeal, deal_windows, share
from lrh_ray.store.order import EpochOrder, cut_pieces, random_permutation


@given(num=st.integers(0, 3000), seed=st.integers(0, 5))
def test_a_random_permutation_is_one(num, seed):
    assert sorted(random_permutation(num, "test", seed).tolist()) == list(range(num))


def test_the_order_is_the_same_everywhere_and_forever():
    assert random_permutation(8, "rows of a window", "root", 0, 0, 0).tolist() == GOLDEN[0]
    assert random_permutation(8, "order of pieces", "root", 0, 0).tolist() == GOLDEN[1]
    order = EpochOrder.make(root="root", seed=1, epoch=2, counts=np.array([3, 0, 5, 2, 4, 4]), window_rows=8)
    assert (order.order.tolist(), order.edges.tolist(), order.starts.tolist()) == GOLDEN[2]


GOLDEN = (
    [6, 5, 0, 3, 2, 1, 4, 7],
    [6, 2, 5, 1, 4, 7, 3, 0],
    ([5, 0, 3, 4, 2], [0, 2, 4, 5], [0, 7, 13, 18]),
)
"""Of the first release; a change breaks every saved place. Made by printing the three left-hand sides."""


def test_permutations_are_uniform():
    counts = np.zeros((6, 6))
    for number in range(6000):
        counts[np.arange(6), random_permutation(6, "uniform", number)] += 1
    assert abs(counts / 1000 - 1).max() < 0.17  # 5 standard deviations of a binomial of 6000 x 1/6


@given(
    counts=st.lists(st.integers(0, 40), max_size=60),
    window_rows=st.integers(40, 200),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_windows_hold_every_piece_once_and_never_too_much(counts, window_rows, seed, epoch):
    order = EpochOrder.make(root="r", seed=seed, epoch=epoch, counts=np.array(counts, int), window_rows=window_rows)
    pieces = [piece for window in range(order.num_windows) for piece in order.pieces(window)]
    assert sorted(pieces) == [(piece, rows) for piece, rows in enumerate(counts) if rows]
    sizes = np.diff(order.starts)
    assert (sizes <= window_rows).all()
    assert order.num_rows == sum(counts)
    assert all(sizes[w] + order.pieces(w + 1)[0][1] > window_rows for w in range(order.num_windows - 1))


@given(data=st.data(), total=st.integers(0, 300), world=st.integers(1, 7), drop_last=st.booleans())
def test_ranks_partition_every_global_batch(data, total, world, drop_last):
    size = data.draw(st.integers(world, 90))
    deals = [
        BatchDeal(num_rows=total, batch_size=size, rank=rank, world=world, drop_last=drop_last) for rank in range(world)
    ]
    for start in range(0, total + size, size):
        parts = [deal.batch(start) for deal in deals]
        num = min(size, total - start)
        if num <= 0 or (drop_last and num < size):
            assert parts == [None] * world
            continue
        rows = [list(range(*interval)) for part in parts for interval in part]
        assert flat(rows) == list(range(start, start + num))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=24, max_size=60))
def test_dealt_windows_are_read_once_through_any_changes_of_the_world(data, sizes):
    starts = np.append(0, np.cumsum(sizes))
    dealt, read = (), []
    for _ in range(data.draw(st.integers(1, 4))):
        world = data.draw(st.integers(1, 6))
        deals = [
            WindowDeal(segments=deal_windows(starts, dealt, rank, world), batch_size=7, drop_last=False)
            for rank in range(world)
        ]
        consumed = tuple(data.draw(st.integers(0, deal.num_rows + 5)) for deal in deals)
        for deal, limit in zip(deals, consumed, strict=True):
            read += _rows_of(deal, min(limit, deal.num_rows))
        dealt = (*dealt, (world, consumed))
    for rank in range(2):
        rest = WindowDeal(segments=deal_windows(starts, dealt, rank, 2), batch_size=7, drop_last=False)
        read += _rows_of(rest, rest.num_rows)
    assert sorted(read) == list(range(sum(sizes)))


def _rows_of(deal, stop):
    rows, position = [], 0
    while position < stop:
        rows += flat(range(*interval) for interval in deal.batch(position))
        position += deal.batch_size
    return rows[:stop]


@given(num=st.integers(0, 10_000), world=st.integers(1, 50))
def test_shares_differ_by_at_most_one_row(num, world):
    sizes = [last - first for first, last in (share(num, rank, world) for rank in range(world))]
    assert sum(sizes) == num
    assert max(sizes) - min(sizes) <= 1


def test_pieces_are_at_most_an_eighth_of_a_window(store):
    assert cut_pieces(store.plan, 1 << 19).rows_per_piece == store.plan.rows_per_block
    assert cut_pieces(store.plan, 8 * 32).rows_per_piece == 32
    assert cut_pieces(store.plan, 16).rows_per_piece == 16
