"""The loader among threads, processes and damage: memory that is bounded and its own, places that travel."""

import gc
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
from loader_stores import LENGTHS, SITES, order_of

from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import SiteSpec
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.loader import Loader
from lrh_ray.store.plan import make_plan
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.loading import epoch_rows
from lrh_ray.testing.stores import fill, make_corpus, make_model, make_store, make_tokens

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
