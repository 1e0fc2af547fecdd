"""Foreign activations become stores: every row arrives once, unchanged, and what no store holds is refused."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lrh_ray.errors import SourceUnusable, StoreConflict
from lrh_ray.store.foreign import as_pairs, import_activations
from lrh_ray.store.reader import open_store
from lrh_ray.store.verify import verify


def source_rows(store, site):
    """Rows of an imported npy source in source order, found again through their documents' names."""
    parts = {}
    for block in range(store.plan.num_blocks):
        keys, rows = store.keys(block), store.block_rows(site, block)
        for doc in np.unique(keys.doc):
            mine = keys.doc == doc
            first = int(store.document_ids[doc].rsplit(":", 1)[1].split("-")[0])
            parts[first] = rows[mine]
            assert np.array_equal(keys.position[mine], np.arange(mine.sum()))
    return np.concatenate([parts[first] for first in sorted(parts)])


def make_rows(num_rows, width, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(num_rows, width)).astype(dtype)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_rows=st.integers(1, 300),
    width=st.integers(1, 40),
    rows_per_document=st.integers(1, 70),
    dtype=st.sampled_from([np.float32, np.float16]),
    fortran=st.booleans(),
)
def test_every_row_of_an_npy_file_arrives_once_and_unchanged(
    tmp_path_factory, num_rows, width, rows_per_document, dtype, fortran
):
    folder = tmp_path_factory.mktemp("npy")
    rows = make_rows(num_rows, width, dtype)
    np.save(folder / "acts.npy", np.asfortranarray(rows) if fortran else rows)
    facts = import_activations(
        folder / "store", folder / "acts.npy", site="resid.3", rows_per_document=rows_per_document
    )
    store = open_store(folder / "store")
    assert store.sites == ("resid.3",) == tuple(facts["sites"])
    assert store.plan.sites[0].layer == 3
    found = source_rows(store, "resid.3")
    assert found.dtype == dtype
    assert np.array_equal(found, rows)
    assert facts["documents"] == -(-num_rows // rows_per_document)


def test_the_store_says_that_nothing_was_compared(tmp_path):
    np.save(tmp_path / "acts.npy", make_rows(40, 8))
    facts = import_activations(tmp_path / "store", tmp_path / "acts.npy")
    store = open_store(tmp_path / "store")
    assert store.sealed
    assert store.manifest["parity"]["passed"] is None
    assert store.manifest["parity"]["kind"] == "none"
    assert store.plan.identity["model"]["name"] == "foreign"
    assert store.plan.identity["model"]["digest"] == facts["digest"]
    assert set(store.texts) == {""}
    assert all((store.keys(block).token_id == -1).all() for block in range(store.plan.num_blocks))
    assert json.loads(json.dumps(facts)) == facts
    verdict = verify(tmp_path / "store", 2)
    assert verdict.ok
    assert not verdict.litter


def test_keys_beside_an_npy_file_are_kept(tmp_path):
    rows = make_rows(60, 4)
    np.save(tmp_path / "acts.npy", rows)
    np.save(tmp_path / "acts.token_id.npy", np.arange(60, dtype=np.int64))
    np.save(tmp_path / "acts.position.npy", np.arange(60) % 7 + 3)
    np.save(tmp_path / "acts.doc.npy", np.repeat([5, 9, 2], [10, 20, 30]))
    import_activations(tmp_path / "store", tmp_path / "acts.npy")
    store = open_store(tmp_path / "store")
    assert set(store.document_ids) == {"acts.npy:5", "acts.npy:9", "acts.npy:2"}
    seen = []
    for block in range(store.plan.num_blocks):
        keys, found = store.keys(block), store.block_rows("acts", block)
        seen += keys.token_id.tolist()
        assert np.array_equal(found, rows[keys.token_id])
        assert np.array_equal(keys.position, keys.token_id % 7 + 3)
        names = np.repeat(["acts.npy:5", "acts.npy:9", "acts.npy:2"], [10, 20, 30])
        assert np.array_equal(np.array(store.document_ids)[keys.doc], names[keys.token_id])
    assert sorted(seen) == list(range(60))


def test_bits_of_bfloat16_in_an_npy_file(tmp_path):
    rows = make_rows(50, 8, ml_dtypes.bfloat16)
    np.save(tmp_path / "bits.npy", rows.view(np.uint16))
    with pytest.raises(SourceUnusable, match="bits='bfloat16'"):
        import_activations(tmp_path / "store", tmp_path / "bits.npy")
    assert import_activations(tmp_path / "store", tmp_path / "bits.npy", bits="bfloat16")["dtype"] == "bfloat16"
    assert np.array_equal(source_rows(open_store(tmp_path / "store"), "bits"), rows)


def test_a_folder_of_npy_files_is_one_site(tmp_path):
    rows = make_rows(90, 4)
    (tmp_path / "in").mkdir()
    for number, part in enumerate(np.split(rows, [30, 50])):
        np.save(tmp_path / "in" / f"part-{number}.npy", part)
        np.save(tmp_path / "in" / f"part-{number}.lengths.npy", np.array([len(part) - 5, 5]))
    facts = import_activations(tmp_path / "store", tmp_path / "in", site="resid.0")
    store = open_store(tmp_path / "store")
    assert (facts["rows"], facts["documents"], facts["files"]) == (90, 6, 6)
    assert sorted(map(tuple, store.rows("resid.0").tolist())) == sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_become_sites_on_the_same_rows(tmp_path, dtype):
    arrays = {"blocks.10.out": make_rows(70, 8, dtype, 1), "blocks.9.out": make_rows(70, 5, dtype, 2)}
    tokens = {"token_id": np.arange(70), "lengths": np.array([1, 2, 60, 7])}
    save_file({**arrays, **tokens}, tmp_path / "acts.safetensors", metadata={"odd": "x" * 3})
    facts = import_activations(tmp_path / "store", tmp_path / "acts.safetensors", rename={"blocks.9.out": "resid.10"})
    store = open_store(tmp_path / "store")
    assert store.sites == ("resid.10", "blocks.10.out") == tuple(facts["sites"])
    for block in range(store.plan.num_blocks):
        token = store.keys(block).token_id
        assert np.array_equal(store.block_rows("resid.10", block), arrays["blocks.9.out"][token])
        assert np.array_equal(store.block_rows("blocks.10.out", block), arrays["blocks.10.out"][token])


def save_cache(folder, rows, tokens, *, shards=2):
    """As SAELens' runner saves it, by the library it uses."""
    datasets = pytest.importorskip("datasets")
    _, context, width = rows.shape
    features = {"blocks.1.hook_out": datasets.Array2D(shape=(context, width), dtype="float32")}
    columns = {"blocks.1.hook_out": list(rows)}
    if tokens is not None:
        features["token_ids"] = datasets.Sequence(datasets.Value("int32"), length=context)
        columns["token_ids"] = tokens.tolist()
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.save_to_disk(str(folder), num_shards=shards)


@pytest.mark.parametrize("layout", ["now", "early"])
def test_cached_activations_of_saelens(tmp_path, layout):
    rows = make_rows(7 * 6, 5).reshape(7, 6, 5)
    tokens = np.arange(42, dtype=np.int32).reshape(7, 6)
    if layout == "now":
        save_cache(tmp_path / "cache", rows, tokens)
        told = {"model_name": "gelu-1l", "shuffle": False, "hf_token": "hidden"}
        (tmp_path / "cache" / "cache_activations_runner_cfg.json").write_text(json.dumps(told))
    else:
        for number in range(7):
            save_cache(tmp_path / "cache" / f"shard_{number}", rows[number : number + 1], None, shards=1)
    facts = import_activations(
        tmp_path / "store", tmp_path / "cache", rename={"blocks.1.hook_out": "resid.2"}, rows_per_block=12
    )
    store = open_store(tmp_path / "store")
    assert (facts["kind"], facts["rows"], facts["documents"]) == ("saelens", 42, 7)
    assert store.sites == ("resid.2",)
    flat = rows.reshape(-1, 5)
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        example = np.array([int(store.document_ids[doc].split()[1]) for doc in keys.doc])
        assert np.array_equal(store.block_rows("resid.2", block), flat[example * 6 + keys.position])
        assert np.array_equal(keys.token_id, tokens[example, keys.position] if layout == "now" else 0 * example - 1)
    group = json.loads((tmp_path / "store" / "data.zarr" / "zarr.json").read_text())
    written = json.dumps(group)
    assert ("gelu-1l" in written) == (layout == "now")
    assert "hidden" not in written


class Stopped(Exception):
    """Ends an import from outside."""


def test_a_stopped_import_is_finished_by_the_same_call_and_a_finished_one_is_left_alone(tmp_path):
    np.save(tmp_path / "acts.npy", make_rows(800, 4))
    ask = {"rows_per_document": 16, "rows_per_block": 64}

    def stop(receipt):
        if receipt.block == 4:
            raise Stopped

    with pytest.raises(Stopped):
        import_activations(tmp_path / "store", tmp_path / "acts.npy", on_block=stop, **ask)
    assert not open_store(tmp_path / "store").sealed
    done = import_activations(tmp_path / "store", tmp_path / "acts.npy", **ask)
    whole = import_activations(tmp_path / "other", tmp_path / "acts.npy", **ask)
    assert 0 < done["blocks_written"] < whole["blocks_written"] == whole["blocks"]
    assert done["root"] == whole["root"]
    before = snapshot(tmp_path / "store")
    assert import_activations(tmp_path / "store", tmp_path / "acts.npy", **ask)["blocks_written"] == 0
    assert snapshot(tmp_path / "store") == before


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


KILLED = """
import os, signal, sys
from lrh_ray.store.foreign import import_activations
def killed(receipt):
    if receipt.block == 2:
        os.kill(os.getpid(), signal.SIGKILL)
import_activations(sys.argv[1], sys.argv[2], rows_per_document=16, rows_per_block=64, on_block=killed)
"""


def test_a_killed_import_is_finished_by_the_same_call(tmp_path):
    np.save(tmp_path / "acts.npy", make_rows(400, 4))
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "store", tmp_path / "acts.npy"])
    assert done.returncode == -signal.SIGKILL
    import_activations(tmp_path / "store", tmp_path / "acts.npy", rows_per_document=16, rows_per_block=64)
    store = open_store(tmp_path / "store")
    assert store.sealed
    assert np.array_equal(source_rows(store, "acts"), np.load(tmp_path / "acts.npy"))
    assert not list((tmp_path / "store").glob("staging/*.acts"))


def test_a_source_that_changed_is_another_store(tmp_path):
    rows = make_rows(40, 4)
    np.save(tmp_path / "acts.npy", rows)
    import_activations(tmp_path / "store", tmp_path / "acts.npy")
    rows[0, 0] += 1
    np.save(tmp_path / "acts.npy", rows)
    with pytest.raises(StoreConflict):
        import_activations(tmp_path / "store", tmp_path / "acts.npy")


def test_memory_does_not_grow_with_the_activations(tmp_path):
    """Peaks of Python's and NumPy's allocations; mapped pages belong to the file cache."""
    peaks = []
    for name, num_rows in (("small", 8_000), ("large", 80_000)):
        path = tmp_path / f"{name}.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(num_rows, 128)).flush()
        tracemalloc.start()
        import_activations(tmp_path / name, path, site="acts", rows_per_block=4096)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown_rows = 72_000
    assert peaks[1] - peaks[0] < grown_rows * 128 * 4 / 5  # keys grow by tens of bytes a row; the rows have 512


def save(path, array):
    np.save(path, array, allow_pickle=True)


ROWS = make_rows(20, 3)
WRONG = {
    "float64": ({"a.npy": ROWS.astype(np.float64)}, r"holds float64; stores hold float32, float16, bfloat16"),
    "integers": ({"a.npy": np.ones((20, 3), np.int32)}, "holds int32"),
    "objects": ({"a.npy": np.array([[None, {}]], dtype=object)}, "Arrays of Python objects are not read"),
    "one axis": ({"a.npy": ROWS[:, 0]}, r"has shape \(20,\); activations are \[rows, width\]"),
    "three axes": ({"a.npy": ROWS[None]}, r"has shape \(1, 20, 3\)"),
    "no rows": ({"a.npy": ROWS[:0]}, "nothing to import"),
    "tokens": ({"a.npy": ROWS, "a.token_id.npy": np.arange(19)}, "token_id has 19 entries and the activations 20 rows"),
    "token type": ({"a.npy": ROWS, "a.token_id.npy": np.ones(20)}, "token_id must be whole numbers"),
    "token size": ({"a.npy": ROWS, "a.token_id.npy": np.full(20, 2**40)}, "it must be a count"),
    "lengths": (
        {"a.npy": ROWS, "a.lengths.npy": np.array([5, 16])},
        "lengths add up to 21 and the activations have 20",
    ),
    "zero length": ({"a.npy": ROWS, "a.lengths.npy": np.array([20, 0])}, "at least 1"),
    "twice": ({"a.npy": ROWS, "a.lengths.npy": np.array([20]), "a.doc.npy": np.zeros(20, int)}, "given twice"),
    "torn": ({"a.npy": ROWS, "a.doc.npy": np.arange(20) % 2}, "rows of document 0 do not stand together"),
    "widths": ({"a.npy": ROWS, "b.npy": ROWS[:, :2]}, "share their arrays"),
    "nan": ({"a.npy": np.where(np.arange(20)[:, None] == 7, np.nan, ROWS).astype("f4")}, "1 rows, the first is row 7"),
    "infinite": ({"a.npy": np.where(np.arange(20)[:, None] > 17, np.inf, ROWS).astype("f2")}, "2 rows, the first is"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_store_holds_is_refused_by_name(tmp_path, name):
    files, message = WRONG[name]
    for file, array in files.items():
        save(tmp_path / file, array)
    with pytest.raises(SourceUnusable, match=message):
        import_activations(tmp_path / "store", tmp_path if len(files) > 1 and "b.npy" in files else tmp_path / "a.npy")


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00nonsense")
    with pytest.raises(SourceUnusable, match=r"no plain \.npy array"):
        import_activations(tmp_path / "store", tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", ROWS)
    os.truncate(tmp_path / "y.npy", 200)
    with pytest.raises(SourceUnusable, match=r"no plain \.npy array"):
        import_activations(tmp_path / "store", tmp_path / "y.npy")
    save_file({"a": ROWS}, tmp_path / "z.safetensors")
    whole = (tmp_path / "z.safetensors").read_bytes()
    for damaged in (whole[:-1], whole[:9], (2**60).to_bytes(8, "little") + whole[8:]):
        (tmp_path / "z.safetensors").write_bytes(damaged)
        with pytest.raises(SourceUnusable, match="no intact safetensors"):
            import_activations(tmp_path / "store", tmp_path / "z.safetensors")
    with pytest.raises(SourceUnusable, match="neither"):
        import_activations(tmp_path / "store", tmp_path / "absent")


def test_a_cache_that_points_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../other.arrow"}]}))
    with pytest.raises(SourceUnusable, match="not a file of its folder"):
        import_activations(tmp_path / "store", tmp_path / "cache")


def test_names_that_no_site_can_have_are_refused(tmp_path):
    save_file({"a/b": ROWS, "c": ROWS}, tmp_path / "x.safetensors")
    source = tmp_path / "x.safetensors"
    with pytest.raises(SourceUnusable, match="cannot be the name of a site"):
        import_activations(tmp_path / "store", source)
    with pytest.raises(SourceUnusable, match="would become one site"):
        import_activations(tmp_path / "store", source, rename={"a/b": "c"})
    with pytest.raises(SourceUnusable, match="no array 'd'"):
        import_activations(tmp_path / "store", source, rename={"d": "e"})
    with pytest.raises(SourceUnusable, match="holds 2 arrays"):
        import_activations(tmp_path / "store", source, site="resid.1")
    with pytest.raises(SourceUnusable, match="cannot be the name"):
        import_activations(tmp_path / "store", source, rename={"a/b": "statistics"})
    assert not (tmp_path / "store").exists()


def test_pairs_of_a_command_line():
    assert as_pairs(["a.b=c", "d=e=f"]) == {"a.b": "c", "d": "e=f"}
    with pytest.raises(SourceUnusable, match="FOUND=SITE"):
        as_pairs(["=c"])
