"""Hugging Face datasets give the raw rows, streamed and mapped, with typed features."""

import shutil

import numpy as np
import pytest

from lrh_ray.errors import StoreConflict
from lrh_ray.loads.arrays import bits_as_float32
from lrh_ray.loads.datasets import export_dataset, stream_dataset

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def silent():
    datasets.disable_progress_bars()


def columns(rows):
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_streaming_gives_the_raw_rows(sealed):
    stream = stream_dataset(sealed.path, ["resid.0"])
    assert stream.num_shards == sealed.store.plan.num_blocks
    assert stream.features["resid.0"] == datasets.List(datasets.Value("float32"), length=24)
    found = columns(list(stream))
    assert np.array_equal(found["resid.0"].astype(np.float32), sealed.float32)
    assert np.array_equal(found["document"], sealed.document)
    for name in ("token_id", "position", "index"):
        assert np.array_equal(found[name], getattr(sealed, name))


def test_a_seed_permutes_blocks_and_loses_no_row(sealed):
    orders = [[row["index"] for row in stream_dataset(sealed.path, ["resid.0"], seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == sealed.index.tolist() for order in orders)


def test_workers_share_the_blocks(sealed):
    stream = stream_dataset(sealed.path, ["resid.0"])
    parts = [[row["index"] for row in stream.shard(num_shards=2, index=rank)] for rank in (0, 1)]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == sealed.index.tolist()


def test_streaming_reads_block_by_block(sealed, tmp_path):
    copy = shutil.copytree(sealed.path, tmp_path / "store")
    stream = iter(stream_dataset(copy, ["resid.0"]))
    next(stream)
    (copy / "data.zarr" / "acts" / "resid.0" / "c" / "3" / "0").write_bytes(b"")
    for _ in range(int(sealed.store.plan.valid_rows[0]) - 1):
        next(stream)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16"])
def test_the_export_is_mapped_and_equal(sealed, tmp_path, dtype):
    table = export_dataset(sealed.path, tmp_path / "arrow", dtype=dtype)
    assert all(file["filename"].startswith(str(tmp_path / "arrow")) for file in table.cache_files)
    found = table.with_format("numpy")[:]
    expected = {
        "float32": sealed.float32,
        "float16": sealed.float32.astype(np.float16),
        "uint16": sealed.rows["resid.0"].view(np.uint16),
    }[dtype]
    assert table.features["resid.0"].feature.dtype == dtype
    assert np.array_equal(found["resid.0"], expected)
    if dtype == "uint16":
        assert np.array_equal(bits_as_float32(found["resid.0"]), sealed.float32)
    assert table["document"][:] == sealed.document.tolist()
    assert np.array_equal(found["index"], sealed.index)


def test_an_export_is_resumed_and_never_mixed(sealed, tmp_path):
    export_dataset(sealed.path, tmp_path / "arrow", ["resid.0"])
    kept = tmp_path / "arrow" / "00000000.arrow"
    before = kept.stat().st_mtime_ns
    (tmp_path / "arrow" / "00000002.arrow").unlink()
    again = export_dataset(sealed.path, tmp_path / "arrow", ["resid.0"])
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(again.with_format("numpy")[:]["resid.0"], sealed.float32)
    with pytest.raises(StoreConflict, match="something else"):
        export_dataset(sealed.path, tmp_path / "arrow", ["final_norm"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreConflict, match="something else"):
        export_dataset(sealed.path, tmp_path / "other")
