"""Tensors are the raw rows; workers and resumed passes see the batches of one process."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lrh_ray.errors import ConfigError, StateConflict
from lrh_ray.loads.torch import TorchRows, as_tensor
from lrh_ray.store.loader import Loader
from lrh_ray.store.reader import open_store
from lrh_ray.testing.stores import fill, make_store

StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls it
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores, on purpose
]
LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 4
SITES = ("resid.0", "final_norm")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("torch") / "store", LENGTHS, rows_per_block=64)
    fill(fake)
    return open_store(fake.root)


def make_rows(store, sites="resid.0", **settings):
    return TorchRows(Loader(store, sites, **{"batch_size": 60, "window_rows": 200, **settings}))


def raw(store, site, index):
    block = {number: store.block_rows(site, number) for number in range(store.plan.num_blocks)}
    size = store.plan.rows_per_block
    return np.stack([block[row // size][row % size] for row in index.tolist()])


def order_of(batches):
    return [batch["index"].tolist() for batch in batches]


def test_tensors_are_the_raw_rows(store):
    for batch in make_rows(store, SITES):
        for site in SITES:
            expected = raw(store, site, batch["index"])
            assert batch[site].dtype == torch.bfloat16
            assert batch[site].view(torch.int16).numpy().tobytes() == expected.tobytes()
    for batch in TorchRows(Loader(store, "resid.0", batch_size=300, dtype="float32"), dtype=torch.float64):
        expected = raw(store, "resid.0", batch["index"]).astype(np.float64)
        assert (batch["resid.0"].numpy() == expected).all()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_tensors_share_memory_with_rows(dtype):
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    tensor = as_tensor(rows)
    assert tensor.data_ptr() == rows.ctypes.data
    assert (tensor.float().numpy() == rows.astype(np.float32)).all()


def test_kept_tensors_do_not_change(store):
    kept = list(make_rows(store))
    for batch in kept:
        assert batch["resid.0"].view(torch.int16).numpy().tobytes() == raw(store, "resid.0", batch["index"]).tobytes()


@pytest.mark.parametrize("num_workers", [0, 2, 3])
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
def test_workers_share_the_epoch_of_one_process(store, kind, num_workers):
    expected = order_of(make_rows(store))
    batches = kind(make_rows(store), batch_size=None, num_workers=num_workers)
    found = list(batches)
    assert order_of(found) == expected
    for batch in found[:3]:
        assert batch["resid.0"].view(torch.int16).numpy().tobytes() == raw(store, "resid.0", batch["index"]).tobytes()


def test_ranks_with_workers_partition_every_batch(store):
    whole = order_of(make_rows(store))
    parts = [
        order_of(DataLoader(make_rows(store, rank=rank, world=2), batch_size=None, num_workers=2)) for rank in range(2)
    ]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 6, 14, 15])
def test_a_stateful_loader_resumes_exactly(store, num_workers, stop):
    def loader(rows):
        return StatefulDataLoader(rows, batch_size=None, num_workers=num_workers)

    rows = make_rows(store)
    expected = order_of(make_rows(store))
    assert len(expected) == 15
    first = loader(rows)
    batches = iter(first)
    head = [next(batches)["index"].tolist() for _ in range(stop)]
    state = json.loads(json.dumps(first.state_dict()))
    second = loader(make_rows(store))
    second.load_state_dict(state)
    tail = order_of(second)
    assert head + tail == expected


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_epochs_are_named_as_with_samplers(store, num_workers, persistent):
    expected = [order_of(make_rows(store, epoch=epoch)) for epoch in (0, 1, 2)]
    rows = make_rows(store)
    batches = DataLoader(rows, batch_size=None, num_workers=num_workers, persistent_workers=persistent)
    for epoch in (0, 1, 2):
        rows.set_epoch(epoch)
        assert order_of(batches) == expected[epoch]
    assert order_of(batches) == expected[2]  # the epoch stays the one named


def test_a_pass_given_up_starts_anew_and_a_loaded_place_is_kept(store):
    rows = make_rows(store)
    batches = iter(rows)
    head = [next(batches)["index"].tolist() for _ in range(4)]
    state = rows.state_dict()
    expected = order_of(rows)
    assert expected[:4] == head
    rows.load_state_dict(state)
    rows.set_epoch(0)
    assert order_of(rows) == expected[4:]


def test_places_of_workers_are_their_own(store):
    rows = make_rows(store)
    with pytest.raises(StateConflict, match="worker 1 of 2"):
        rows.load_state_dict({**rows.state_dict(), "worker": 1, "workers": 2})
    with pytest.raises(StateConflict, match="seed"):
        rows.load_state_dict({**rows.state_dict(), "seed": 5})


def test_a_device_inside_a_worker_is_refused(store):
    rows = TorchRows(Loader(store, "resid.0", batch_size=60), device="meta")
    with pytest.raises(ConfigError, match="device is 'meta'"):
        next(iter(DataLoader(rows, batch_size=None, num_workers=1)))


@pytest.mark.gpu
def test_rows_arrive_on_a_device(store):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    rows = TorchRows(Loader(store, "resid.0", batch_size=60), device="cuda", pin_memory=True)
    for batch in rows:
        assert batch["resid.0"].is_cuda
        found = batch["resid.0"].cpu().view(torch.int16).numpy()
        assert found.tobytes() == raw(store, "resid.0", batch["index"]).tobytes()
