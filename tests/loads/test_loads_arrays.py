"""dask and xarray give the raw rows: in order, without padding, checked, and lazily."""

import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from lrh_ray.errors import ConfigError, DependencyMissing, SiteError, StoreConflict, StoreCorrupt, StoreIncomplete
from lrh_ray.loads.arrays import bits_as_float32, cast_rows, open_dask, open_xarray, opened
from lrh_ray.store.reader import open_store
from lrh_ray.testing.stores import make_store, write_block

dask = pytest.importorskip("dask")
pytest.importorskip("xarray")


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("site", ["resid.0", "final_norm"])
def test_dask_gives_the_raw_rows(sealed, site):
    array = open_dask(sealed.path, site)
    assert array.dtype == np.float32
    assert array.chunks[0] == tuple(sealed.store.plan.valid_rows)
    assert array.shape[0] == sealed.store.plan.num_valid_rows < sealed.store.plan.num_rows
    assert np.array_equal(array.compute(), sealed.rows[site].astype(np.float32))
    assert np.array_equal(array[3:40:2, 5].compute(), sealed.rows[site].astype(np.float32)[3:40:2, 5])


def test_dask_in_every_type(sealed, sealed_float32):
    bits = open_dask(sealed.store, "resid.0", dtype="uint16").compute()
    assert np.array_equal(bits, sealed.rows["resid.0"].view(np.uint16))
    assert np.array_equal(bits_as_float32(bits), sealed.float32)
    own = open_dask(sealed.store, "resid.0", dtype="bfloat16").compute()
    assert own.dtype == ml_dtypes.bfloat16
    assert np.array_equal(own, sealed.rows["resid.0"])
    half = open_dask(sealed.store, "resid.0", dtype="float16").compute()
    assert np.array_equal(half, sealed.float32.astype(np.float16))
    with pytest.raises(StoreConflict, match="Ask for float32"):
        open_dask(sealed_float32.store, "resid.0", dtype="uint16")
    with pytest.raises(SiteError, match=r"It has: resid\.0, final_norm"):
        open_dask(sealed.store, "resid.9")


def test_float16_is_refused_where_it_overflows():
    largest = np.array([[65504.0, 65519.0]], dtype=np.float32)
    assert np.isfinite(cast_rows(largest, "float16")).all()
    with pytest.raises(StoreConflict, match="1 values exceed"):
        cast_rows(np.array([[65520.0, -1.0]], dtype=np.float32), "float16")


def test_nothing_is_read_before_it_is_asked_for(sealed, tmp_path):
    copy = shutil.copytree(sealed.path, tmp_path / "store")
    array, labelled = open_dask(copy, "resid.0"), open_xarray(copy, "resid.0")
    shard = copy / "data.zarr" / "acts" / "resid.0" / "c" / "1" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[7] ^= 1
    shard.write_bytes(damaged)
    first = int(sealed.store.plan.valid_rows[0])
    assert np.array_equal(array[:first].compute(), sealed.float32[:first])
    with pytest.raises(StoreCorrupt, match="crc32c"):
        array.compute()
    with pytest.raises(StoreCorrupt, match="crc32c"):
        labelled.mean().compute()


def test_xarray_gives_rows_and_who_they_are(sealed):
    labelled = open_xarray(sealed.path, "resid.0")
    assert labelled.dims == ("token", "feature")
    assert labelled.name == "resid.0"
    assert all(labelled.coords[name].chunks is not None for name in ("token_id", "position", "document"))
    assert np.array_equal(labelled.values, sealed.float32)
    assert np.array_equal(labelled.token_id.values, sealed.token_id)
    assert np.array_equal(labelled.position.values, sealed.position)
    assert np.array_equal(labelled.document.values, sealed.document)
    chosen = labelled[(labelled.document == "doc-3").compute()].values
    assert np.array_equal(chosen, sealed.float32[sealed.document == "doc-3"])


def test_a_joined_store_is_read_from_both_places(sealed, sealed_float32, tmp_path):
    other = make_store(tmp_path / "other", [20, 7, 13, 1] * 12, seed=1)
    for block in range(other.plan.num_blocks):
        write_block(other, block)
    joined = open_store([sealed.path, other.root])
    assert np.array_equal(open_dask(joined, "resid.0").compute(), joined.rows("resid.0"))


def test_missing_blocks_are_an_error_or_skipped(tmp_path):
    fake = make_store(tmp_path / "store", [20] * 20)
    for block in (0, 2):
        write_block(fake, block)
    with pytest.raises(StoreIncomplete, match="block 1"):
        open_dask(fake.root, "resid.0")
    store = open_store(fake.root)
    expected = np.concatenate([store.block_rows("resid.0", block) for block in (0, 2)]).astype(np.float32)
    assert np.array_equal(open_dask(fake.root, "resid.0", missing="skip").compute(), expected)
    assert open_xarray(fake.root, "resid.0", missing="skip").sizes["token"] == len(expected)


def test_a_store_that_changed_is_not_read_as_the_old_one(tmp_path):
    fake = make_store(tmp_path / "store", [20] * 20)
    write_block(fake, 0)
    early = open_dask(fake.root, "resid.0", missing="skip")
    write_block(fake, 1)
    opened.cache_clear()
    with pytest.raises(StoreConflict, match="Open it again"):
        early.compute()


def test_a_chunk_travels_to_another_process(sealed):
    with dask.config.set(scheduler="processes", num_workers=1):
        assert np.array_equal(open_dask(sealed.path, "resid.0")[:50].compute(), sealed.float32[:50])


@pytest.mark.parametrize(
    ("call", "library"),
    [
        ("arrays.open_dask(s, 'resid.0')", "dask"),
        ("arrays.open_xarray(s, 'resid.0')", "xarray"),
        ("datasets.stream_dataset(s)", "datasets"),
        ("anndata.to_anndata(s, 'resid.0')", "anndata"),
    ],
)
def test_a_missing_library_names_the_extra(sealed, monkeypatch, call, library):
    from lrh_ray.loads import anndata, arrays, datasets

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyMissing, match=rf"{library}.*lrh-ray\[interop\]"):
        eval(call, {"s": sealed.store, "arrays": arrays, "datasets": datasets, "anndata": anndata})


def test_a_type_no_tool_has_is_refused(sealed):
    from lrh_ray.loads.datasets import stream_dataset

    with pytest.raises(ConfigError, match="float32, float16, uint16"):
        stream_dataset(sealed.store, dtype="bfloat16")
    with pytest.raises(ConfigError, match="float32 is always exact"):
        open_dask(sealed.store, "resid.0", dtype="float64")


def test_importing_the_loads_imports_no_tool():
    program = (
        "import sys, lrh_ray.loads.arrays, lrh_ray.loads.datasets, lrh_ray.loads.anndata, lrh_ray.loads.hub;"
        "print(sorted({'xarray', 'dask', 'datasets', 'anndata', 'huggingface_hub', 'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
