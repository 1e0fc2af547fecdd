"""The shuffled loader: every row once, in one order for all worlds, from any interruption on."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_stores import LENGTHS, QUICK, SITES, flat, order_of

from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, StateConflict, StoreIncomplete, UnknownName
from lrh_ray.store.filters import LabelFilter
from lrh_ray.store.loader import Loader
from lrh_ray.store.place import join_states
from lrh_ray.store.reader import open_store
from lrh_ray.testing.stores import fill, make_store, write_block


@pytest.fixture(scope="module")
def keys(store):
    """Keys of all valid rows, in stored order: the oracle of filters."""
    parts = [store.keys(block) for block in range(store.plan.num_blocks)]
    names = ("index", "position", "doc", "char_start", "char_end")
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


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
    with pytest.raises(SiteError, match=r"sink_sites.*resid\.7"):
        Loader(store, "resid.0", batch_size=10, sink_sites=["resid.7"])
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
        {"without_text": "wash"},
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
