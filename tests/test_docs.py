"""The README and the documentation say what is true: their code runs, their paths exist."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrh_ray.models.checkpoints import PREPARED, resolve_checkpoint
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.store.views import view_dtype
from lrh_ray.testing.stores import fill, make_store

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_first_forty_lines_hold_picture_commands_example_and_cluster():
    head = "\n".join(README.splitlines()[:40])
    assert "text ──> tokens ──> activations ──> store" in head
    assert "make demo" in head
    assert "make test" in head
    (example,) = python_blocks(head)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    assert head.count("ray job submit") == 2


@pytest.mark.model
@pytest.mark.timeout(900)  # the whole tiny demo: two minutes on a quiet machine
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    try:
        resolve_checkpoint(next(iter(PREPARED)))
    except FileNotFoundError:
        pytest.skip("the model smollm2 is not prepared: `lrh model prepare smollm2`")
    monkeypatch.chdir(tmp_path)
    (example,) = python_blocks(README)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "demo-tiny" / "report.html").stat().st_size < 5_000_000
    read_by_others(tmp_path / "runs" / "demo-tiny" / "store", tmp_path / "facts.json")


WITHOUT_US = """
import hashlib, importlib.metadata as metadata, json, sys
everything = metadata.entry_points
def others(**how):
    found = everything(**how)
    return metadata.EntryPoints(e for e in found if "lrh_ray" not in e.value) if how else found
metadata.entry_points = others
sys.modules["lrh_ray"] = None  # whoever imports it fails
import numpy as np, tensorstore, zarr
library, facts = sys.argv[1], json.load(open(sys.argv[2]))
for site, digest in facts["sites"].items():
    path = facts["root"] + "/data.zarr/acts/" + site
    if library == "zarr":
        rows = zarr.open_array(path, mode="r")[...]
    else:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        rows = np.asarray(tensorstore.open(spec).result().read().result())
    kept = np.concatenate([rows[first:last] for first, last in facts["rows"]])
    assert hashlib.sha256(kept.tobytes()).hexdigest() == digest, site
print(library, len(facts["sites"]), "sites,", len(kept), "rows of", rows.dtype)
"""


def read_by_others(root: Path, facts: Path) -> None:
    """TensorStore and zarr-python, without this package, read the bytes of every row; zarr knows bfloat16 as uint16."""
    store = open_store(root)
    blocks = range(store.plan.num_blocks)
    first = [block * store.plan.rows_per_block for block in blocks]
    bounds = [(start, start + int(store.plan.valid_rows[block])) for start, block in zip(first, blocks, strict=True)]
    digests = {
        site: hashlib.sha256(b"".join(store.block_rows(site, block).tobytes() for block in blocks)).hexdigest()
        for site in store.sites
    }
    facts.write_text(json.dumps({"root": str(root), "rows": bounds, "sites": digests}))
    for library, dtype in (("tensorstore", "bfloat16"), ("zarr", "uint16")):
        view_dtype(root, dtype)
        told = subprocess.run(
            [sys.executable, "-c", WITHOUT_US, library, str(facts)], capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        assert f"rows of {dtype}" in told.stdout


def test_the_tree_of_the_readme_is_the_tree():
    tree = README.split("## The tree")[1].split("```")[1]
    for path in re.findall(r"^(\S+?)\s", tree, flags=re.MULTILINE):
        assert (ROOT / path).exists(), path


def test_the_format_page_names_what_a_store_holds(tmp_path):
    fake = make_store(tmp_path / "store", [20] * 30)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    page = (ROOT / "docs" / "store-format.md").read_text()
    for path in fake.root.rglob("*"):
        if path.is_file() and "data.zarr" not in path.parts:
            top = path.relative_to(fake.root).parts[0]
            assert f"`{top}" in page, path
    for array in ("token_id", "position", "doc", "char_start", "char_end", "docs", "acts", "stats", "norms"):
        assert (fake.root / "data.zarr" / array).exists()
        assert array in page


def test_the_format_page_reads_a_store_without_this_package(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", [20] * 30)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    view_dtype(fake.root, "uint16")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    (example,) = python_blocks((ROOT / "docs" / "store-format.md").read_text())
    exec(compile(example.replace("resid.15", "resid.0"), "store-format.md", "exec"), names)
    rows = names["rows"]
    assert isinstance(rows, np.ndarray)
    assert rows.dtype == np.float32
    assert 0.9 < rows[rows != 0].std() < 1.1
