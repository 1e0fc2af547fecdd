"""Reading: other libraries see the same rows, filters do what they say, an epoch yields every row once."""

import subprocess
import sys

import numpy as np
import pytest
import zarr

import lrh_ray
from lrh_ray.errors import SiteError, StoreConflict, StoreIncomplete, StoreMissing, UnknownName
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.store.views import view_dtype
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import fill, make_store, truth

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 4

FOREIGN = """
import importlib.metadata, sys
installed = importlib.metadata.distributions  # where this package is not installed, zarr finds no data type of it
importlib.metadata.distributions = lambda **where: (d for d in installed(**where) if d.metadata["Name"] != "lrh-ray")
import numpy as np, xarray as xr, zarr
group = zarr.open(sys.argv[1], mode="r")
rows = group["acts/resid.0"][:]
dataset = xr.open_zarr(sys.argv[1], group="acts", consolidated=False)
assert dataset["resid.0"].dims == ("token", "feature"), dataset
assert (dataset["resid.0"].values == rows).all()
assert rows.dtype == np.uint16
docs = xr.open_zarr(sys.argv[1], group="docs", consolidated=False)
assert docs["id"].values[0].startswith("doc-")
assert not any(name.split(".")[0] == "lrh_ray" for name in sys.modules), "lrh_ray was imported"
np.save(sys.argv[2], rows[group["doc"][:] >= 0])
"""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("reader") / "store", LENGTHS)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    return fake


def all_rows(fake, site):
    return np.concatenate([truth(fake.plan, site, block) for block in range(fake.plan.num_blocks)])


def test_rows_are_what_was_written(sealed):
    store = lrh_ray.open_store(sealed.root)
    assert store.sites == ("resid.0", "final_norm")
    assert store.sealed
    np.testing.assert_array_equal(store.rows("resid.0"), all_rows(sealed, "resid.0").astype(np.float32))


def test_zarr_reads_bfloat16_with_this_package(sealed):
    array = zarr.open_group(sealed.root / "data.zarr", mode="r")["acts/final_norm"]
    valid = zarr.open_group(sealed.root / "data.zarr", mode="r")["doc"][:] >= 0
    assert array[:][valid].tobytes() == all_rows(sealed, "final_norm").tobytes()


def test_zarr_and_xarray_read_the_uint16_view_without_this_package(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    assert view_dtype(fake.root, "uint16") == ("resid.0", "final_norm")
    out = tmp_path / "rows.npy"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FOREIGN, str(fake.root / "data.zarr"), str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert np.load(out).tobytes() == all_rows(fake, "resid.0").tobytes()
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == truth(fake.plan, "resid.0", 0).tobytes()
    assert view_dtype(fake.root, "bfloat16") == ("resid.0", "final_norm")
    assert zarr.open_group(fake.root / "data.zarr", mode="r")["acts/resid.0"].dtype.name == "bfloat16"


def test_a_view_of_other_types_is_refused(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS, dtype="float32")
    with pytest.raises(StoreConflict, match="float32"):
        view_dtype(fake.root, "uint16")


def test_filters(sealed):
    store = open_store(sealed.root)
    assert len(store.rows("resid.0", documents=["doc-3", "doc-5"])) == LENGTHS[3] + LENGTHS[5]
    assert len(store.rows("resid.0", positions=range(1))) == len(LENGTHS)
    assert len(store.rows("resid.0", sinks="drop")) == sum(LENGTHS)


def test_sinks_are_named_by_the_seal_and_can_be_left_out(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    for block in range(fake.plan.num_blocks):
        with BlockWriter(fake.root, fake.plan, block=block, attempt="a1", worker="t") as writer:
            for site in fake.plan.sites:
                rows = truth(fake.plan, site.name, block)
                if site.name == "final_norm":
                    rows[0] *= 100
                writer.write(site.name, 0, rows)
            writer.commit()
    with pytest.raises(StoreIncomplete, match="not sealed"):
        open_store(fake.root).rows("resid.0", sinks="drop")
    manifest = seal(fake.root, fake.plan, parity={})
    assert manifest["sites"]["final_norm"]["sinks"] == fake.plan.num_blocks
    assert manifest["sites"]["resid.0"]["sinks"] == 0
    store = open_store(fake.root)
    assert len(store.rows("final_norm", sinks="drop")) == sum(LENGTHS) - fake.plan.num_blocks
    assert store.sink_mask(0).sum() == 1


def test_statistics_are_those_of_the_rows(sealed):
    group = zarr.open_group(sealed.root / "data.zarr", mode="r")
    rows = all_rows(sealed, "resid.0").astype(np.float64)
    # tiles are summed in float32 and merged in float64: the error is float32's, relative to the column's spread
    np.testing.assert_allclose(group["stats/resid.0/mean"][:], rows.mean(0), rtol=0, atol=1e-6 * rows.std(0).max())
    np.testing.assert_allclose(group["stats/resid.0/m2"][:], ((rows - rows.mean(0)) ** 2).sum(0), rtol=1e-6)
    np.testing.assert_array_equal(group["stats/resid.0/absmax"][:], np.abs(rows).max(0))
    norms = group["norms/resid.0"][:][group["doc"][:] >= 0]
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-6)


def test_labels_reach_the_rows_through_characters(sealed):
    store = open_store(sealed.root)
    labels = store.labels()
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        mask = labels.token_mask("start", keys.doc, keys.char_start, keys.char_end)
        np.testing.assert_array_equal(mask, keys.position == 0)
    parity = {name: "even" if int(name[4:]) % 2 == 0 else "odd" for name in store.document_ids}
    assert labels.document_values("kind") == [parity[name] for name in store.document_ids]
    with pytest.raises(UnknownName, match="Known: kind, start"):
        labels.concept("colour")


def test_mistakes_are_named(sealed, tmp_path):
    with pytest.raises(StoreMissing, match="No store at"):
        open_store(tmp_path)
    with pytest.raises(SiteError, match=r"It has: resid\.0, final_norm"):
        open_store(sealed.root).rows("resid.7")
