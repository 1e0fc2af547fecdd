"""The page on loading says what is true: every block of code runs as it stands and gives the raw rows."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.store.views import view_dtype
from lrh_ray.testing.stores import fill, make_store

PAGE = (Path(__file__).parents[1] / "docs" / "loading.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
CODE = {name: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for name, text in SECTIONS.items()}


@pytest.fixture
def store(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", [20, 7, 13, 1] * 12)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    monkeypatch.chdir(tmp_path)
    return open_store(fake.root)


def run(tool, number=0):
    names = {}
    exec(compile(CODE[tool][number].replace("resid.15", "resid.0"), f"loading.md, {tool}", "exec"), names)
    return names


def test_every_tool_has_three_lines():
    tools = {"NumPy", "Zarr", "xarray", "dask", "torch", "Ray Data", "datasets", "anndata"}
    assert tools <= set(CODE)
    assert all(len(block.strip().splitlines()) == 3 for name in tools for block in CODE[name])
    assert all(CODE[name] for name in tools)


def test_numpy(store):
    found = run("NumPy")["rows"]
    assert np.array_equal(found, store.rows("resid.0", positions=range(1, 9)))


def test_zarr(store):
    assert np.array_equal(run("Zarr")["rows"], store.rows("resid.0"))


def test_zarr_without_this_package(store):
    expected = store.rows("resid.0")
    view_dtype(store.location, "uint16")
    block = CODE["Zarr"][1].replace("resid.15", "resid.0")
    program = f"import sys; sys.modules['lrh_ray'] = None\n{block}\nimport numpy; numpy.save('rows.npy', rows)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load("rows.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_xarray(store):
    pytest.importorskip("xarray")
    names = run("xarray")
    rows = store.rows("resid.0")
    position = np.concatenate([store.keys(block).position for block in range(store.plan.num_blocks)])
    assert np.array_equal(names["rows"].values, rows)
    assert np.allclose(names["mean"].values, rows[position == 5].mean(axis=0), atol=1e-5)  # sums in another order


def test_xarray_opens_the_tree_itself(store):
    xarray = pytest.importorskip("xarray")
    opened = xarray.open_zarr("store/data.zarr", group="acts", consolidated=False)["resid.0"]
    kept = xarray.open_zarr("store/data.zarr", consolidated=False)["doc"].values >= 0
    assert opened.dims == ("token", "feature")
    assert np.array_equal(opened.values[kept].astype(np.float32), store.rows("resid.0"))


def test_dask(store):
    pytest.importorskip("dask")
    names = run("dask")
    assert np.array_equal(names["rows"].compute(), store.rows("resid.0"))
    assert np.allclose(names["mean"], store.rows("resid.0").mean(axis=0), atol=1e-5)


def test_torch(store):
    torch = pytest.importorskip("torch")
    batches = list(run("torch")["batches"])
    index = torch.cat([batch["index"] for batch in batches])
    rows = torch.cat([batch["resid.0"] for batch in batches])
    assert torch.equal(rows[torch.argsort(index)].float(), torch.from_numpy(store.rows("resid.0")))


def test_datasets(store):
    pytest.importorskip("datasets").disable_progress_bars()
    names = run("datasets")
    expected = store.rows("resid.0")
    assert np.array_equal(np.array([row["resid.0"] for row in names["stream"]], dtype=np.float32), expected)
    assert np.array_equal(names["table"][:]["resid.0"], expected)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_anndata(store):
    pytest.importorskip("anndata")
    names = run("anndata")
    assert np.array_equal(names["rows"].X, store.rows("resid.0", positions=range(1, 9)))
    assert names["means"].n_obs == 48


def test_the_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    np.save("acts.npy", rows)
    run("The other way: foreign activations")
    found = open_store("imported").rows("resid.6")
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, rows.tolist()))
