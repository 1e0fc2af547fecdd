"""Ray Data gives the raw rows; a read task carries the store's place and nothing of its content."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from lrh_ray.errors import ConfigError, SiteError, StoreConflict, StoreIncomplete
from lrh_ray.loads.arrays import bits_as_float32
from lrh_ray.runtime.datasource import StoreDatasource, read_store
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.testing.stores import fill, make_store, write_block

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("ray") / "store", [20, 7, 13, 1] * 12)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    return open_store(fake.root)


def gathered(tasks):
    return pa.concat_tables([table for task in tasks for table in task()])


def tensor(table, name):
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in table[name].chunks])


@pytest.mark.parametrize("parallelism", [1, 3, 1000])
def test_read_tasks_cover_every_row_once(store, parallelism):
    source = StoreDatasource(store, None, "float32", None)
    tasks = source.get_read_tasks(parallelism)
    table = gathered(tasks)
    assert len(tasks) == min(parallelism, store.plan.num_blocks)
    assert sum(task.metadata.num_rows for task in tasks) == table.num_rows == store.plan.num_valid_rows
    assert sum(task.metadata.size_bytes for task in tasks) == source.estimate_inmemory_data_size()
    keys = [store.keys(block) for block in range(store.plan.num_blocks)]
    for name in ("token_id", "position", "doc", "index"):
        assert table[name].to_pylist() == [int(value) for part in keys for value in getattr(part, name)]
    for site in store.sites:
        assert np.array_equal(tensor(table, site), store.rows(site))


def test_types(store):
    bits = tensor(gathered(StoreDatasource(store, ["resid.0"], "uint16", None).get_read_tasks(2)), "resid.0")
    assert bits.dtype == np.uint16
    assert np.array_equal(bits_as_float32(bits), store.rows("resid.0"))
    half = tensor(gathered(StoreDatasource(store, ["resid.0"], "float16", None).get_read_tasks(2)), "resid.0")
    assert half.dtype == np.float16
    assert np.array_equal(half, store.rows("resid.0").astype(np.float16))


def test_a_seed_permutes_blocks_the_same_way_for_any_number_of_tasks(store):
    orders = [
        gathered(StoreDatasource(store, ["resid.0"], "float32", seed).get_read_tasks(tasks))["index"].to_pylist()
        for seed, tasks in ((0, 1), (0, 4), (1, 4))
    ]
    plain = [int(row) for block in range(store.plan.num_blocks) for row in store.keys(block).index]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != plain
    assert all(sorted(order) == plain for order in orders)


def test_a_task_carries_no_rows_and_no_store(store, tmp_path):
    sizes = []
    for lengths in ([20] * 20, [20] * 2000):
        fake = make_store(tmp_path / str(len(lengths)), lengths, rows_per_block=len(lengths))
        fill(fake)
        tasks = StoreDatasource(open_store(fake.root), None, "float32", 0).get_read_tasks(20)
        sizes.append(len(cloudpickle.dumps(tasks[0])))
    assert max(sizes) < 5000
    assert abs(sizes[1] - sizes[0]) < 100


def test_what_cannot_be_read_is_refused_at_once(store, tmp_path):
    with pytest.raises(ConfigError, match=r"No data type 'bfloat16' here\. Choose one of float32, float16, uint16"):
        StoreDatasource(store, None, "bfloat16", None)
    with pytest.raises(SiteError, match=r"resid\.9"):
        StoreDatasource(store, ["resid.9"], "float32", None)
    fake = make_store(tmp_path / "store", [20] * 20)
    write_block(fake, 0)
    with pytest.raises(StoreIncomplete):
        StoreDatasource(fake.root, None, "float32", None)
    with pytest.raises(StoreConflict, match="uint16 are the bits"):
        StoreDatasource(float32_store(tmp_path), None, "uint16", None)


def float32_store(tmp_path):
    fake = make_store(tmp_path / "float32", [20] * 20, dtype="float32")
    fill(fake)
    return fake.root


def test_ray_data_reads_lazily_and_gives_the_raw_rows(cluster, store, monkeypatch):
    data = read_store(store.location, ["resid.0"], seed=3, num_tasks=3)
    assert "resid.0" in data.schema().names
    batch = data.take_batch(int(data.count()))
    order = np.argsort(batch["index"])
    assert np.array_equal(batch["resid.0"][order], store.rows("resid.0"))
    options = ray.data.DataContext.get_current().execution_options
    monkeypatch.setattr(options, "preserve_order", True)
    ordered = read_store(store.location, ["final_norm"]).select_columns(["final_norm", "index"])
    rows = np.concatenate([part["final_norm"] for part in ordered.iter_batches(batch_size=64)])
    assert np.array_equal(rows, store.rows("final_norm"))


def test_the_lines_of_the_documentation_run(cluster, store, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "loading.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page.split("## Ray Data")[1].split("\n## ")[0], flags=re.DOTALL)
    (tmp_path / "store").symlink_to(store.location)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines.replace("resid.15", "resid.0"), "loading.md", "exec"), names)
    found = np.concatenate([batch["resid.0"] for batch in names["batches"]])
    index = np.concatenate([batch["index"] for batch in names["again"]])
    assert np.array_equal(found[np.argsort(index)], store.rows("resid.0"))
