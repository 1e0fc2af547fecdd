"""The shuffled loader: every row once, in one order for all worlds, from any interruption on."""

import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import traceback
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrh_ray.errors import (
    ConfigError,
    NotEnoughData,
    SiteError,
    StateConflict,
    StoreCorrupt,
    StoreIncomplete,
    UnknownName,
)
from lrh_ray.records import SiteSpec
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.deal import BatchDeal, WindowDeal, deal_windows, share
from lrh_ray.store.filters import LabelFilter
from lrh_ray.store.loader import Loader
from lrh_ray.store.order import EpochOrder, cut_pieces, random_permutation
from lrh_ray.store.place import join_states
from lrh_ray.store.plan import make_plan
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.loading import epoch_rows
from lrh_ray.testing.stores import fill, make_corpus, make_model, make_store, make_tokens, truth, write_block

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 4
SITES = ("resid.0", "final_norm")
QUICK = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    made = make_store(tmp_path_factory.mktemp("loader") / "store", LENGTHS, rows_per_block=64)
    fill(made)
    seal(made.root, made.plan, parity={})
    return made


@pytest.fixture(scope="module")
def store(fake):
    opened = open_store(fake.root)
    assert (opened.plan.num_blocks, opened.plan.chunk_rows, opened.plan.num_valid_rows) == (14, 16, 844)
    return opened


@pytest.fixture(scope="module")
def all_rows(store):
    """Rows of each site by global row; padding is zero."""
    found = {}
    for site in SITES:
        found[site] = np.zeros((store.plan.num_rows, 24), dtype=ml_dtypes.bfloat16)
        for block in range(store.plan.num_blocks):
            rows = truth(store.plan, site, block)
            found[site][block * store.plan.rows_per_block :][: len(rows)] = rows
    return found


@pytest.fixture(scope="module")
def keys(store):
    """Keys of all valid rows, in stored order: the oracle of filters."""
    parts = [store.keys(block) for block in range(store.plan.num_blocks)]
    names = ("index", "position", "doc", "char_start", "char_end")
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def order_of(loader):
    return [batch.index.tolist() for batch in loader]


def flat(batches):
    return [row for batch in batches for row in batch]


# --- the order, without a store ---


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


# --- laws of a whole epoch ---


@QUICK
@given(
    batch_size=st.integers(1, 400),
    window_rows=st.integers(16, 1000),
    prefetch=st.integers(0, 2),
    seed=st.integers(0, 2),
    epoch=st.integers(0, 2),
    verify=st.sampled_from(["never", "always", "first_epoch"]),
)
def test_an_epoch_is_every_row_once_with_its_own_bytes(
    store, all_rows, batch_size, window_rows, prefetch, seed, epoch, verify
):
    settings = {"seed": seed, "epoch": epoch, "window_rows": window_rows, "prefetch": prefetch, "verify": verify}
    loader = Loader(store, SITES, batch_size=batch_size, **settings)
    kept = list(loader)  # held all at once: no batch may change under the hands of its owner
    assert len(kept) == len(Loader(store, SITES, batch_size=batch_size, **settings))
    assert [len(batch.index) for batch in kept[:-1]] == [batch_size] * (len(kept) - 1)
    for batch in kept:
        for site in SITES:
            assert batch.rows[site].tobytes() == all_rows[site][batch.index].tobytes()
    rows = np.concatenate([batch.index for batch in kept])
    valid = np.concatenate([store.keys(block).index for block in range(store.plan.num_blocks)])
    assert (np.sort(rows) == valid).all()
    assert loader.epoch == epoch + 1


def test_the_order_depends_on_root_seed_and_epoch_and_on_nothing_else(store):
    reference = order_of(Loader(store, "resid.0", batch_size=50, window_rows=200))
    same = [
        Loader(store, SITES, batch_size=50, window_rows=200, prefetch=0, verify="always"),
        Loader(store, "final_norm", batch_size=50, window_rows=200, prefetch=3, dtype="float32"),
        Loader(open_store(store.location), "resid.0", batch_size=50, window_rows=200),
    ]
    assert all(order_of(loader) == reference for loader in same)
    assert flat(order_of(Loader(store, "resid.0", batch_size=77, window_rows=200))) == flat(reference)
    others = [
        order_of(Loader(store, "resid.0", batch_size=50, window_rows=200, **other))
        for other in ({"seed": 1}, {"epoch": 1})
    ]
    assert len({str(order) for order in [reference, *others]}) == 3


def test_rows_are_mixed_across_the_store(store):
    order = np.array(flat(order_of(Loader(store, "resid.0", batch_size=50))))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.15  # 4 standard errors of 844 rows
    assert (np.diff(order) == 1).mean() < 0.01
    windows = np.array(flat(order_of(Loader(store, "resid.0", batch_size=50, window_rows=256))))
    assert len(np.unique(windows[:200] // 64)) > 6  # a window of four blocks' size comes from more blocks


@QUICK
@given(
    data=st.data(),
    batch_size=st.integers(5, 200),
    window_rows=st.integers(16, 900),
    worlds=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    drop_last=st.booleans(),
    positions=st.sampled_from([None, range(3, 11), (0, 2, 4)]),
)
def test_an_interrupted_epoch_is_an_undisturbed_one(store, data, batch_size, window_rows, worlds, drop_last, positions):
    def ranks(world):
        return [
            Loader(
                store,
                "resid.0",
                batch_size=batch_size,
                window_rows=window_rows,
                rank=rank,
                world=world,
                drop_last=drop_last,
                positions=positions,
                verify="never",
            )
            for rank in range(world)
        ]

    whole = order_of(ranks(1)[0])
    before, after = worlds
    stop = data.draw(st.integers(0, len(whole)))
    seen = [[] for _ in range(stop)]
    states = []
    for loader in ranks(before):
        iterator = iter(loader)
        for batch in seen:
            batch += next(iterator).index.tolist()
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert all(state == states[0] for state in states)
    resumed = [[] for _ in range(len(whole) - stop)]
    for loader in ranks(after):
        loader.load_state_dict(states[0])
        parts = [batch.index.tolist() for batch in loader.iterate()]
        assert len(parts) == len(resumed)
        for batch, part in zip(resumed, parts, strict=True):
            batch += part
    assert seen + resumed == whole
    if not drop_last:
        assert len(set(flat(whole))) == len(flat(whole)) == ranks(1)[0].num_rows


def test_epochs_are_one_stream(store):
    def loader():
        return Loader(store, "resid.0", batch_size=100, window_rows=300)

    undisturbed = loader()
    stream = [order_of(undisturbed), order_of(undisturbed)]
    assert stream[0] != stream[1]
    first = loader()
    order_of(first)
    second = loader()
    second.load_state_dict(first.state_dict())  # saved between two epochs
    second.set_epoch(1)  # a training loop may name the epoch it is in
    iterator = iter(second)
    head = [next(iterator).index.tolist() for _ in range(3)]
    third = loader()
    third.load_state_dict(second.state_dict())
    third.set_epoch(1)
    assert head + order_of(third) == stream[1]
    third.set_epoch(0)
    assert order_of(third) == stream[0]


def test_batches_dealt_to_workers_are_those_of_one_process(store):
    whole = order_of(Loader(store, "resid.0", batch_size=60, window_rows=200))
    for step in (2, 3, 20):
        parts = [
            [
                batch.index.tolist()
                for batch in Loader(store, "resid.0", batch_size=60, window_rows=200).iterate(first=first, step=step)
            ]
            for first in range(step)
        ]
        assert [parts[number % step][number // step] for number in range(len(whole))] == whole


def test_a_place_is_refused_elsewhere(store, tmp_path):
    def loader(opened=store, **other):
        return Loader(opened, "resid.0", **{"batch_size": 50, "window_rows": 200, **other})

    state = loader().state_dict()
    loader(batch_size=20, rank=1, world=3, prefetch=0).load_state_dict(state)
    for other in (
        {"seed": 1},
        {"window_rows": 201},
        {"positions": range(4)},
        {"documents": ["doc-1"]},
        {"sinks": "drop"},
        {"labels": [LabelFilter(concept="kind", value="even")]},
        {"deal": "window", "window_rows": 200},
    ):
        with pytest.raises(StateConflict):
            loader(**other).load_state_dict(state)
    other_store = make_store(tmp_path / "other", LENGTHS, rows_per_block=64, seed=1)
    fill(other_store)
    with pytest.raises(StateConflict, match="root"):
        loader(open_store(other_store.root)).load_state_dict(state)
    for broken in (
        {},
        {**state, "consumed": -1},
        {**state, "epoch": "x"},
        {**state, "version": 2},
        {**state, "dealt": 3},
    ):
        with pytest.raises(StateConflict):
            loader().load_state_dict(broken)


# --- windows dealt to ranks ---


@QUICK
@given(data=st.data(), batch_size=st.integers(3, 60), worlds=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_dealt_windows_resume_in_another_world(store, data, batch_size, worlds):
    def ranks(world):
        return [
            Loader(
                store, "resid.0", batch_size=batch_size, deal="window", window_rows=48, rank=rank, world=world,
                verify="never", positions=range(1, 40),
            )
            for rank in range(world)
        ]  # fmt: skip

    seen, states = [], []
    for loader in ranks(worlds[0]):
        batches = iter(loader)
        for _ in range(data.draw(st.integers(0, len(loader)))):
            seen += next(batches).index.tolist()
        states.append(json.loads(json.dumps(loader.state_dict())))
    joined = join_states(states)
    for loader in ranks(worlds[1]):
        loader.load_state_dict(joined)
        seen += flat(batch.index.tolist() for batch in loader.iterate())
    assert len(seen) == len(set(seen)) == ranks(1)[0].num_rows


def test_a_rank_goes_on_with_its_own_windows(store):
    def loader():
        return Loader(store, "resid.0", batch_size=20, deal="window", window_rows=48, rank=1, world=2)

    whole = order_of(loader())
    first, second = loader(), loader()
    batches = iter(first)
    head = [next(batches).index.tolist() for _ in range(7)]
    second.load_state_dict(first.state_dict())
    assert head + order_of(second) == whole


def test_a_rank_that_finished_its_windows_counts_as_finished(store):
    def rank(number, world):
        return Loader(store, "resid.0", batch_size=20, deal="window", window_rows=48, rank=number, world=world)

    first, second = rank(0, 2), rank(1, 2)
    seen = flat(order_of(first))
    assert first.epoch == 1
    seen += next(iter(second)).index.tolist()
    rest = rank(0, 1)
    rest.load_state_dict(join_states([second.state_dict(), first.state_dict()]))
    seen += flat(order_of(rest))
    assert len(seen) == len(set(seen)) == rest.num_rows
    ahead = rank(0, 2)
    ahead.set_epoch(1)
    next(iter(ahead))
    with pytest.raises(StateConflict, match="epoch"):
        join_states([ahead.state_dict(), second.state_dict()])
    with pytest.raises(StateConflict, match="all ranks"):
        join_states([second.state_dict()])
    with pytest.raises(StateConflict, match="join_states"):
        rank(0, 2).load_state_dict(second.state_dict())


def test_ranks_are_dealt_other_windows_every_epoch_and_read_only_their_own(store):
    def rows(epoch):
        return set(
            flat(order_of(Loader(store, "resid.0", batch_size=20, deal="window", window_rows=48, world=3, epoch=epoch)))
        )

    assert rows(0) != rows(1)
    with pytest.raises(NotEnoughData, match="4 windows"):
        order_of(Loader(store, "resid.0", batch_size=20, deal="window", world=3))


# --- filters ---


def wanted_rows(keys, mask):
    return keys["index"][mask].tolist()


def test_filters_keep_exactly_their_rows(store, keys):
    ids = np.array(store.document_ids)[keys["doc"]]
    labels = store.labels()
    even = np.array([value == "even" for value in labels.document_values("kind")])[keys["doc"]]
    start = labels.token_mask("start", keys["doc"], keys["char_start"], keys["char_end"], "yes")
    sinks = np.concatenate([store.sink_mask(block, ["resid.0"]) for block in range(store.plan.num_blocks)])
    inside = (keys["position"] >= 3) & (keys["position"] < 9)
    cases = [
        ({"documents": ["doc-3", "doc-17", "doc-30"]}, np.isin(ids, ["doc-3", "doc-17", "doc-30"])),
        ({"positions": range(3, 9)}, inside),
        ({"positions": [8, 3, 3]}, np.isin(keys["position"], [3, 8])),
        ({"labels": [LabelFilter(concept="kind", value="even")]}, even),
        ({"labels": [LabelFilter(concept="kind")]}, np.ones(len(ids), bool)),
        ({"labels": [LabelFilter(concept="start", value="yes")]}, start),
        ({"sinks": "drop"}, ~sinks),
        ({"positions": range(3, 9), "labels": [LabelFilter(concept="kind", value="even")]}, inside & even),
        ({"documents": []}, np.zeros(len(ids), bool)),
    ]
    for filters, mask in cases:
        loader = Loader(store, "resid.0", batch_size=70, window_rows=130, **filters)
        assert loader.num_rows == mask.sum(), filters
        assert sorted(flat(order_of(loader))) == wanted_rows(keys, mask), filters


def test_filtered_rows_of_all_sites_have_their_own_bytes(store, all_rows):
    loader = Loader(store, SITES, batch_size=30, positions=(0, 7, 21), window_rows=64)
    for batch in loader:
        for site in SITES:
            assert batch.rows[site].tobytes() == all_rows[site][batch.index].tobytes()


def test_unknown_names_are_refused(store):
    for filters, name in (
        ({"documents": ["doc-1", "nobody"]}, "nobody"),
        ({"labels": [LabelFilter(concept="colour")]}, "colour"),
        ({"labels": [LabelFilter(concept="kind", value="odder")]}, "odder"),
    ):
        with pytest.raises(UnknownName, match=name):
            Loader(store, "resid.0", batch_size=10, **filters)
    for sites in ("resid.7", (), ("resid.0", "resid.0")):
        with pytest.raises(SiteError):
            Loader(store, sites, batch_size=10)
    for wrong in (
        {"batch_size": 1, "world": 2},
        {"rank": 2, "world": 2},
        {"rank": -1},
        {"window_rows": 15},
        {"prefetch": -1},
        {"dtype": "int8"},
        {"deal": "cards"},
        {"verify": "maybe"},
        {"missing": "hide"},
        {"sinks": "wash"},
    ):
        with pytest.raises((ConfigError, TypeError)):  # run-time type checks see the last four first
            Loader(store, "resid.0", **{"batch_size": 10, **wrong})


def test_missing_blocks_are_an_error_or_skipped(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS, rows_per_block=64)
    for block in (0, 3, 4):
        write_block(fake, block)
    store = open_store(fake.root)
    with pytest.raises(StoreIncomplete, match="11 of 14"):
        Loader(store, "resid.0", batch_size=10)
    loader = Loader(store, "resid.0", batch_size=10, missing="skip")
    expected = flat(store.keys(block).index.tolist() for block in (0, 3, 4))
    assert sorted(flat(order_of(loader))) == expected


def test_batches_in_another_data_type(store, all_rows):
    for dtype in ("float32", "float16"):
        for batch in Loader(store, "resid.0", batch_size=100, dtype=dtype):
            assert batch.rows["resid.0"].dtype == dtype
            assert (batch.rows["resid.0"] == all_rows["resid.0"][batch.index].astype(dtype)).all()


# --- memory, threads, processes ---


def test_memory_is_used_again_only_when_nobody_holds_it(store):
    loader = Loader(store, "resid.0", batch_size=10)
    places, held = set(), None
    for number, batch in enumerate(loader):
        places.add(batch.rows["resid.0"].ctypes.data)
        if number == 3:
            held, copy = batch.rows["resid.0"][2:5].T, batch.rows["resid.0"][2:5].T.copy()  # a view of a view
    assert len(places) <= 4
    assert held.tobytes() == copy.tobytes()


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lrh-read")]


def test_threads_live_only_while_iterating(store):
    loader = Loader(store, "resid.0", batch_size=10, window_rows=64)
    iterator = iter(loader)
    assert not reading_threads()
    next(iterator)
    assert reading_threads()
    del iterator
    gc.collect()
    assert not reading_threads()
    assert len(order_of(loader)) == len(loader) - 1
    assert not reading_threads()


def test_two_iterations_at_once_do_not_disturb_one_another(store, all_rows):
    loader = Loader(store, "resid.0", batch_size=30, window_rows=64)
    reference = order_of(Loader(store, "resid.0", batch_size=30, window_rows=64))
    first, second = loader.iterate(), loader.iterate()
    for batches, expected in zip(zip(first, second, strict=True), reference, strict=True):
        for batch in batches:
            assert batch.index.tolist() == expected
            assert batch.rows["resid.0"].tobytes() == all_rows["resid.0"][batch.index].tobytes()


def test_a_pickled_loader_carries_its_place(store):
    loader = Loader(store, SITES, batch_size=40, window_rows=100)
    iterator = iter(loader)
    next(iterator)
    data = pickle.dumps(loader)
    assert len(data) < 200_000
    assert epoch_rows(pickle.loads(data)) == epoch_rows(loader)


def in_fork(function):
    """The exit code of a forked child that runs `function`."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a child must never return into pytest
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("begun", [0, 1, 9])
def test_a_forked_process_reads_on(store, begun):
    expected = order_of(Loader(store, "resid.0", batch_size=40, window_rows=100))[begun:]
    loader = Loader(store, "resid.0", batch_size=40, window_rows=100)
    iterator = iter(loader)
    for _ in range(begun):
        next(iterator)

    def child():
        assert [batch.index.tolist() for batch in iterator] == expected

    assert in_fork(child) == 0
    assert in_fork(lambda: loader.set_epoch(0) or order_of(loader)) == 0
    assert [batch.index.tolist() for batch in iterator] == expected


def test_a_spawned_process_reads_the_same(store):
    loader = Loader(store, SITES, batch_size=40, window_rows=100)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(epoch_rows, (loader,))
    assert there == epoch_rows(loader)


LEFT_OPEN = """
import sys
from lrh_ray.store.loader import Loader
from lrh_ray.store.reader import open_store
loader = Loader(open_store(sys.argv[1]), "resid.0", batch_size=10, window_rows=64)
iterator = iter(loader)
next(iterator)
print("left open")
"""


def test_an_interpreter_ends_with_an_iteration_left_open(fake):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN, str(fake.root)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "left open", "")


# --- damage ---


@pytest.fixture
def damaged(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS, rows_per_block=64)
    fill(fake)
    path = fake.root / "data.zarr" / "acts" / "resid.0" / "c" / "5" / "0"
    sound = path.read_bytes()
    broken = bytearray(sound)
    broken[40] ^= 8
    path.write_bytes(broken)
    return fake, path, sound


def test_damage_surfaces_in_the_batch_that_needs_it_and_the_place_stays_good(damaged):
    fake, path, sound = damaged
    loader = Loader(open_store(fake.root), "resid.0", batch_size=25, window_rows=64)
    seen = []
    with pytest.raises(StoreCorrupt, match=r"Block 5, site 'resid.0', chunk 0 \(rows 320\.\.335\)"):
        seen.extend(batch.index.tolist() for batch in loader)
    assert 0 < len(seen) < len(loader)
    assert not reading_threads()
    path.write_bytes(sound)
    assert seen + order_of(loader) == order_of(Loader(open_store(fake.root), "resid.0", batch_size=25, window_rows=64))


def test_verification_happens_when_asked_for(damaged):
    fake, _, _ = damaged
    store = open_store(fake.root)

    def finds_damage(verify, epochs):
        loader = Loader(store, "resid.0", batch_size=25, verify=verify)
        loader.set_epoch(epochs)
        try:
            order_of(loader)
        except StoreCorrupt:
            return True
        return False

    found = {verify: [finds_damage(verify, epoch) for epoch in (0, 1)] for verify in ("first_epoch", "always", "never")}
    assert found == {"first_epoch": [True, False], "always": [True, True], "never": [False, False]}


def test_a_lost_shard_is_named(damaged):
    fake, path, _ = damaged
    path.unlink()
    with pytest.raises(StoreCorrupt, match="Block 5"):
        order_of(Loader(open_store(fake.root), ["final_norm", "resid.0"], batch_size=25, verify="never"))


# --- constant memory ---

EPOCH_RSS = r"""
import re, sys
from pathlib import Path
from lrh_ray.store.loader import Loader
from lrh_ray.store.reader import open_store
loader = Loader(open_store(sys.argv[1]), "resid.0", batch_size=256, window_rows=4096, verify="always")
rows = sum(len(batch.index) for batch in loader)
print(rows, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_reading_a_store_ten_times_larger_takes_no_more_memory(tmp_path):
    """12 MB and 120 MB of rows; a reader that keeps what it reads would need twice as much."""
    peaks = {}
    for name, documents in (("small", 60), ("large", 600)):
        root = wide_store(tmp_path / name, documents)
        done = subprocess.run([sys.executable, "-c", EPOCH_RSS, str(root)], capture_output=True, text=True, check=True)
        rows, peaks[name] = map(int, done.stdout.split())
        assert rows == documents * 200
    assert peaks["large"] < 1.05 * peaks["small"], peaks


def wide_store(root, documents):
    tokens = make_tokens([200] * documents)
    corpus = make_corpus(tokens)
    model = replace(make_model(), sites=(SiteSpec(name="resid.0", width=512, layer=0),))
    plan = make_plan(tokens, model, StoreConfig(sites=("resid.0",), rows_per_block=2000), {"corpus": "c"})
    create_store(root, plan, tokens, corpus, config_yaml="", provenance={})
    rows = np.random.default_rng(0).normal(size=(2000, 512)).astype(ml_dtypes.bfloat16)
    for block in range(plan.num_blocks):
        with BlockWriter(root, plan, block=block, attempt="a1", worker="test") as writer:
            writer.write("resid.0", 0, rows[: int(plan.valid_rows[block])])
            writer.commit()
    return root


def test_pieces_are_at_most_an_eighth_of_a_window(store):
    assert cut_pieces(store.plan, 1 << 19).rows_per_piece == store.plan.rows_per_block
    assert cut_pieces(store.plan, 8 * 32).rows_per_piece == 32
    assert cut_pieces(store.plan, 16).rows_per_piece == 16
