"""Derived stores: the parent's rows in the parent's order, sites with data types of their own, and their lineage."""

import json
import re

import numpy as np
import pytest
import zarr

from lrh_ray.errors import StoreConflict, StoreCorrupt, StoreIncomplete, StoreMissing, TooLarge
from lrh_ray.loads.arrays import cast_rows
from lrh_ray.models.selection import choose_rows
from lrh_ray.records import Document, SiteSpec
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.context import KEYS
from lrh_ray.store.derived import all_tokens, create_derived, derived_plan, parent_of
from lrh_ray.store.loader import Loader
from lrh_ray.store.origin import writing_command
from lrh_ray.store.plan import make_plan
from lrh_ray.store.reader import open_sealed, open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.stamps import stamped
from lrh_ray.store.status import store_status
from lrh_ray.store.verify import verify
from lrh_ray.store.views import view_dtype
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import fill, make_corpus, make_model, make_store, make_tokens

SITES = (
    SiteSpec(name="x.index", width=3, layer=None, dtype="int32"),
    SiteSpec(name="x.value", width=5, layer=2, dtype="float32"),
)


def rows_of(block, num):
    rng = np.random.default_rng(block)
    index = rng.integers(0, 2**31 - 1, (num, 3)).astype(np.int32)
    return {"x.index": index, "x.value": rng.standard_normal((num, 5)).astype(np.float32)}


def derive(root, parent, **lineage):
    plan = derived_plan(parent, SITES, {"root": parent.root, **lineage})
    create_derived(root, parent, plan, config_yaml="{}\n", provenance={"made_by": "tests"})
    return plan


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("parent") / "store", [20, 7, 33] * 10, rows_per_block=128)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    return fake


@pytest.fixture(scope="module")
def derived(fake, tmp_path_factory):
    root = tmp_path_factory.mktemp("derived") / "store"
    plan = derive(root, parent_of(open_store(fake.root)))
    for block in range(plan.num_blocks):
        with BlockWriter(root, plan, block=block, attempt="a1", worker="test") as writer:
            for site, rows in rows_of(block, int(plan.valid_rows[block])).items():
                writer.write(site, 0, rows)
            writer.commit()
    seal(root, plan, parity={})
    return root


def test_rows_come_back_in_their_own_data_types(derived):
    store, group = open_store(derived), zarr.open_group(derived / "data.zarr", mode="r")
    for block in range(store.plan.num_blocks):
        first = block * store.plan.rows_per_block
        for site, rows in rows_of(block, int(store.plan.valid_rows[block])).items():
            found = store.block_rows(site, block)
            assert found.dtype == rows.dtype == group[f"acts/{site}"].dtype
            np.testing.assert_array_equal(found, rows)
            np.testing.assert_array_equal(group[f"acts/{site}"][first : first + len(rows)], rows)
    assert verify(derived, 2).ok


def test_a_damaged_byte_is_found(derived, tmp_path):
    shard = derived / "data.zarr/acts/x.index/c/1/0"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert not verify(derived, 2).ok
        with pytest.raises(StoreCorrupt):
            open_store(derived).block_rows("x.index", 1)
    finally:
        shard.write_bytes(whole)


def test_it_is_read_beside_its_parent(derived, fake):
    parent, both = open_store(fake.root), open_store([fake.root, derived])
    assert both.sites == (*parent.sites, "x.index", "x.value")
    assert both.model_sites == parent.sites
    assert open_store(derived).model_sites == ()
    for block in range(parent.plan.num_blocks):
        np.testing.assert_array_equal(both.block_rows("resid.0", block), parent.block_rows("resid.0", block))
        np.testing.assert_array_equal(both.sink_mask(block), parent.sink_mask(block))
    assert both.block_rows("resid.0", 0).dtype == "bfloat16"
    batch = next(iter(Loader(both, ["resid.0", "x.value"], batch_size=32, seed=0)))
    assert {rows.dtype for rows in batch.rows.values()} == {np.dtype(np.float32)}
    values = np.concatenate([both.block_rows("x.value", b) for b in range(both.plan.num_blocks)])
    assert {tuple(row) for row in batch.rows["x.value"].tolist()} <= {tuple(row) for row in values.tolist()}
    assert Loader(both, "resid.0", batch_size=32, seed=0).dtype == "bfloat16"


def test_documents_and_tokens_are_the_parents(derived, fake):
    parent, store = open_store(fake.root), open_store(derived)
    assert (store.document_ids, store.texts) == (parent.document_ids, parent.texts)
    assert store.labels().digest == parent.labels().digest
    for block in range(store.plan.num_blocks):
        ours, theirs = store.keys(block), parent.keys(block)
        for name in ours.__slots__:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    tokens = all_tokens(parent.parts[0])
    assert tokens.document_ids == fake.tokens.document_ids
    for name in ("token_ids", "positions", "char_start", "char_end", "starts"):
        np.testing.assert_array_equal(getattr(tokens, name), getattr(fake.tokens, name))


def test_the_lineage_is_a_part_of_the_identity(derived, fake, tmp_path):
    parent = parent_of(open_store(fake.root))
    identity = json.loads((derived / "dataset.json").read_bytes())["identity"]
    assert identity["derived"] == {"root": parent.root}
    one = derive(tmp_path / "store", parent, weights="1")
    assert derive(tmp_path / "store", parent, weights="1").digest == one.digest
    with pytest.raises(StoreConflict, match="derived"):
        derive(tmp_path / "store", parent, weights="2")


def test_the_context_of_chosen_rows_goes_along(tmp_path):
    tokens = make_tokens([20, 7, 33])
    documents = [Document(id=name, text="x") for name in tokens.document_ids]
    chosen = choose_rows(tokens, documents, rows="every:4", pool="none")
    plan = make_plan(chosen.rows, make_model("float32"), StoreConfig(sites=("resid.0",), rows="every:4"), {})
    root, corpus = tmp_path / "parent", make_corpus(chosen.rows)
    create_store(root, plan, chosen.rows, corpus, config_yaml="name: x\n", provenance={}, context=chosen.context)
    derive(tmp_path / "derived", parent_of(open_store(root)))
    for key in KEYS:
        assert (tmp_path / "derived" / key).read_bytes() == (root / key).read_bytes()
    assert open_store(tmp_path / "derived").keys(0).position.tolist() == open_store(root).keys(0).position.tolist()


def test_an_unfinished_one_names_the_command_that_finishes_it_and_no_other(derived, fake, tmp_path):
    place, parent = tmp_path / "the store", parent_of(open_store(fake.root))
    plan = derive(place, parent, site="resid.0", name="structured, rank None", result="1f3a", weights="2b")
    command = f"`lrh apply RESULT STORE --site resid.0 --name 'structured, rank None' -o '{place}'`"
    meaning = f"(RESULT with digest 1f3a, STORE with root {parent.root})"
    assert store_status(place).as_plain()["next"] == f"Finish it with {command} {meaning}."
    assert "next" not in store_status(derived).as_plain()
    joined = open_store([fake.root, place])
    for ask in (
        lambda: open_sealed(place),
        lambda: open_store(place).rows("x.value"),
        lambda: joined.rows("x.value"),
        lambda: open_store(place).block_rows("x.value", 0),
        lambda: open_store(place).sink_mask(0, ["x.value"]),
        lambda: Loader(open_store(place), "x.value", batch_size=8),
        lambda: seal(place, plan, parity={}),
    ):
        with pytest.raises(StoreIncomplete, match=re.escape(command)) as raised:
            ask()
        assert "extract" not in str(raised.value)
    (place / "plan/sealed.json").unlink()
    with pytest.raises(StoreMissing, match=re.escape(command)):
        open_store(place)


def test_the_command_that_writes_a_store_follows_from_its_identity():
    assert writing_command({}, "s") == writing_command(None, "s") == "`lrh extract CONFIG`"
    assert writing_command({"twin_of": "2b"}, "s") == "`lrh extract CONFIG --twin`"
    assert writing_command({"source": {"kind": "npy"}}, "s3://b/s") == "`lrh import SOURCE s3://b/s`"
    of_a_twin = {"twin_of": "2b", "derived": {"root": "1f", "site": "a", "name": "b", "weights": "3c", "result": None}}
    assert "RESULT with weights of digest 3c" in writing_command(of_a_twin, "s")


@pytest.mark.parametrize("strange", ["\x1b[2J", "$(x); `x`", "x" * 10**6, ["a"], None, 5])
def test_what_an_identity_says_steers_neither_a_terminal_nor_a_shell(strange):
    for identity in (strange, {"derived": strange}, {"derived": {"site": strange, "name": strange, "root": strange}}):
        told = writing_command(identity, "s")
        assert told.isprintable()
        assert len(told) < 600
        assert "$(" not in told.replace("'$(x); `x`'", "")


def test_only_bfloat16_has_two_names(derived):
    before = (derived / "data.zarr/zarr.json").read_bytes()
    view_dtype(derived, "uint16")
    assert (derived / "data.zarr/zarr.json").read_bytes() == before
    with pytest.raises(StoreConflict, match="bits of bfloat16"):
        cast_rows(open_store(derived).block_rows("x.value", 0), "uint16")


def test_a_site_without_a_type_of_its_own_does_not_name_one(fake):
    """So that plans from before there were such sites keep their digests."""
    record = json.loads((fake.root / "plan/plan.json").read_bytes())
    assert [set(site) for site in record["sites"]] == [{"name", "width", "layer"}] * 2


def test_what_no_store_holds_is_refused(derived, fake, tmp_path):
    parent = parent_of(open_store(fake.root))
    with pytest.raises(TooLarge, match="sparse or narrow"):
        derived_plan(parent, [SiteSpec(name="wide", width=1 << 20, layer=None, dtype="float32")], {})
    with pytest.raises(StoreConflict, match="one parent"):
        parent_of(open_store([fake.root, derived]))
    plan = derive(tmp_path / "store", parent)
    with (
        BlockWriter(tmp_path / "store", plan, block=0, attempt="a1", worker="test") as writer,
        pytest.raises(StoreCorrupt, match="takes int32"),
    ):
        writer.write("x.index", 0, np.zeros((2, 3), np.float32))
    place = tmp_path / "store/plan/plan.json"
    record = json.loads(place.read_bytes())
    record["sites"][0]["dtype"] = "int64"
    del record["stamp"]
    place.write_bytes(stamped(record))
    with pytest.raises(StoreCorrupt, match=r"or one of a site|is no plan"):
        open_store(tmp_path / "store")
