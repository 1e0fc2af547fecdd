"""The format page is normative: its tables are read here and held against real stores."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr

from lrh_ray.digests import digest_json
from lrh_ray.models.selection import choose_rows
from lrh_ray.records import Document
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.plan import make_plan
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.studies.labelling import add_labels
from lrh_ray.testing.stores import fill, make_corpus, make_model, make_store, make_tokens

PAGE = (Path(__file__).parents[1] / "docs" / "store-format.md").read_text()
TYPES = {"string": str, "int": int, "float": (int, float), "object": dict, "list": list}
WILD = {"folder": r"\d{5}", "block": r"\d+", "attempt": r"[0-9a-f]+", "chunk": r"\d+(/\d+)*", "array": r"[\w./]+"}


def table(heading):
    """Rows of the first table below a heading, as lists of cells."""
    below = PAGE.split(f"{heading}\n", 1)[1]
    lines = re.search(r"\|.*\|\n(?:\|.*\|\n)+", below)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def pattern(cell):
    names = re.split(r"(<\w+>)", cell.strip("`"))
    parts = [WILD.get(part[1:-1], r"[\w.-]+") if part.startswith("<") else re.escape(part) for part in names]
    return re.compile("".join(parts))


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def store(request, tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("format") / "store", [20, 7, 33] * 10, dtype=request.param)
    unsealed = {path.relative_to(fake.root).as_posix() for path in fake.root.rglob("*") if path.is_file()}
    fill(fake)
    (record,) = [json.loads((fake.root / "commits/00000/00000001.json").read_bytes())]
    seal(fake.root, fake.plan, parity={"passed": True})
    lines = fake.root.parent / "later.jsonl"
    lines.write_text(json.dumps({"id": "doc-1", "labels": {"mood": "glad"}}))
    add_labels(fake.root, lines)
    return fake, unsealed, record


def test_every_object_of_a_store_is_on_the_page_and_the_other_way_round(store):
    fake, unsealed, _ = store
    found = unsealed | {path.relative_to(fake.root).as_posix() for path in fake.root.rglob("*") if path.is_file()}
    found |= {"commits/00000/00000001.json", "staging/00000001.a1.resid.0"}  # seen while blocks are written
    patterns = {cells[0]: pattern(cells[0]) for cells in table("## Objects")}
    for key in found:
        assert any(one.fullmatch(key) for one in patterns.values()), f"{key} is not on the page"
    for name, one in patterns.items():
        assert any(one.fullmatch(key) for key in found), f"no store has {name}"


@pytest.mark.parametrize("name", ["dataset.json", "plan/plan.json", "plan/sealed.json", "manifest.json"])
def test_records_have_exactly_the_fields_of_the_page(store, name):
    check_record(json.loads((store[0].root / name).read_bytes()), table(f"### `{name}`"))


def test_commit_records_have_exactly_the_fields_of_the_page(store):
    check_record(store[2], table("### `commits/<folder>/<block>.json`"))
    packed = (store[0].root / "commits/packed.jsonl").read_bytes().splitlines()
    assert store[2] in [json.loads(line) for line in packed]


def check_record(record, rows):
    assert set(record) == {cells[0].strip("`") for cells in rows}
    for name, kind, _ in rows:
        assert isinstance(record[name.strip("`")], TYPES[kind]), name
    stamp = record.pop("stamp")
    assert stamp == digest_json(record)
    record["stamp"] = stamp


def test_arrays_have_the_types_and_shapes_of_the_page(store):
    fake = store[0]
    plan, group = fake.plan, zarr.open_group(fake.root / "data.zarr", mode="r")
    sizes = {"rows": plan.num_rows, "width": 24, "sequences": len(plan.starts), "32": 32, "1": 1}
    arrays = dict(group.members(max_depth=None))
    found = {name for name, member in arrays.items() if isinstance(member, zarr.Array)}
    for cells in table("## Arrays"):
        names = [name for name in found if pattern(cells[0]).fullmatch(name)]
        assert names, f"no store has {cells[0]}"
        for name in names:
            dtype, shape = arrays[name].dtype, cells[2].strip("`[]").split(", ")
            assert arrays[name].shape == tuple(sizes[size] for size in shape), name
            wanted = plan.dtype if cells[1] == "the plan's" else cells[1]
            assert dtype.name == wanted or (wanted == "string" and dtype.kind in "OT"), name
        found -= set(names)
    assert not found, f"not on the page: {found}"


def test_the_digests_of_the_page_can_be_computed_from_the_page(store):
    """An outsider's reader: shard bytes to digest to root, with BLAKE3 and JSON alone."""
    from blake3 import blake3

    fake, _, _ = store
    plan = json.loads((fake.root / "plan/plan.json").read_bytes())
    manifest = json.loads((fake.root / "manifest.json").read_bytes())
    commits = [json.loads(line) for line in (fake.root / "commits/packed.jsonl").read_bytes().splitlines()]
    objects = []
    for commit in sorted(commits, key=lambda one: one["block"]):
        for site in plan["sites"]:
            data = (fake.root / f"data.zarr/acts/{site['name']}/c/{commit['block']}/0").read_bytes()
            count = plan["rows_per_block"] // plan["chunk_rows"]
            index = data[-(16 * count + 4) :]
            entries = np.frombuffer(index[:-4], "<u8").reshape(count, 2)
            chunks = [blake3(data[start : start + size - 4]).digest() for start, size in entries.tolist()]
            digest = blake3(b"".join(chunks) + entries[:, 1].tobytes()).hexdigest()[:32]
            assert digest == commit["objects"][site["name"]]["digest"]
            objects.append([commit["block"], site["name"], commit["valid_rows"], len(data), digest])
    root = digest_json({"plan": plan["digest"], "objects": objects})
    assert root == manifest["root"] == open_store(fake.root).root


def test_a_store_of_chosen_rows_has_the_objects_of_the_page(tmp_path):
    tokens = make_tokens([20, 7, 33])
    documents = [Document(id=name, text="x") for name in tokens.document_ids]
    chosen = choose_rows(tokens, documents, rows="every:4", pool="none")
    plan = make_plan(chosen.rows, make_model("float32"), StoreConfig(sites=("resid.0",), rows="every:4"), {})
    corpus = make_corpus(chosen.rows)
    create_store(tmp_path, plan, chosen.rows, corpus, config_yaml="name: x\n", provenance={}, context=chosen.context)
    sizes = {"tokens": 60, "sequences + 1": 4, "rows, 2": (plan.num_valid_rows, 2)}
    for key, dtype, shape, _ in table("### Chosen rows"):
        found = np.load(tmp_path / key.strip("`"))
        assert found.dtype == np.dtype(dtype)
        expected = sizes[shape.strip("`[]")]
        assert found.shape == (expected if isinstance(expected, tuple) else (expected,))
    first = np.load(tmp_path / "plan/context_ranges.npy")[: int(plan.lengths[0])]
    assert first.tolist() == [[at, at + 1] for at in range(0, int(tokens.lengths[plan.source[0]]), 4)]
