"""Stores joined: the same rows with more sites, or more rows with the same sites; nothing is copied."""

from dataclasses import replace

import numpy as np
import pytest

from lrh_ray.errors import SiteError, StoreConflict
from lrh_ray.records import Document, SiteSpec
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.growth import grow_plan, new_documents
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.testing.stores import FakeStore, fill, make_corpus, make_model, make_store, make_tokens

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 3
CONFIG = StoreConfig(sites=("resid.0", "final_norm"))
IDENTITY = {"corpus": "c"}


def finish(fake):
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    return open_store(fake.root)


@pytest.fixture
def base(tmp_path):
    return finish(make_store(tmp_path / "base", LENGTHS))


def renamed(tokens, prefix):
    return replace(tokens, document_ids=tuple(f"{prefix}-{i}" for i in range(len(tokens.document_ids))))


def grow(base, root, tokens, sites):
    model = replace(make_model(), sites=tuple(SiteSpec(name=name, width=24, layer=None) for name in sites))
    plan = grow_plan(base, tokens, model, CONFIG, IDENTITY)
    corpus = make_corpus(tokens)
    create_store(root, plan, tokens, corpus, config_yaml="", provenance={})
    return finish(FakeStore(root=root, plan=plan, tokens=tokens, corpus=corpus))


def rows_of(store, site):
    return np.concatenate([store.block_rows(site, block) for block in range(store.plan.num_blocks)])


def test_added_sites_stand_on_the_same_rows(base, tmp_path):
    added = grow(base, tmp_path / "more", make_tokens(LENGTHS), ["resid.0", "resid.1"])
    assert added.sites == ("resid.1",)
    both = open_store([tmp_path / "base", tmp_path / "more"])
    assert both.sites == ("resid.0", "final_norm", "resid.1")
    assert both.sealed
    assert both.plan.num_valid_rows == base.plan.num_valid_rows
    for site, one in (("resid.0", base), ("resid.1", added)):
        assert rows_of(both, site).tobytes() == rows_of(one, site).tobytes()
    np.testing.assert_array_equal(both.keys(2).token_id, added.keys(2).token_id)
    assert both.root not in (base.root, added.root)
    assert not both.sink_mask(0).any()


def test_added_documents_follow_the_others(base, tmp_path):
    tokens = renamed(make_tokens([20, 11, 38] * 8), "later")
    added = grow(base, tmp_path / "more", tokens, ["resid.0", "final_norm"])
    both = open_store([tmp_path / "base", tmp_path / "more"])
    first = base.plan.num_blocks
    assert both.plan.num_blocks == first + added.plan.num_blocks
    assert both.plan.num_valid_rows == base.plan.num_valid_rows + added.plan.num_valid_rows
    assert (
        rows_of(both, "resid.0").tobytes() == rows_of(base, "resid.0").tobytes() + rows_of(added, "resid.0").tobytes()
    )
    for block in range(both.plan.num_blocks):
        keys = both.keys(block)
        assert keys.index[0] == block * both.plan.rows_per_block
        names = {both.document_ids[doc] for doc in keys.doc}
        assert all(name.startswith("later") == (block >= first) for name in names)
        token_ids, docs = both.row_arrays(("token_id", "doc"), keys.index)
        np.testing.assert_array_equal(token_ids, keys.token_id)
        assert (docs >= 0).all()
        mask = both.labels().token_mask("start", keys.doc, keys.char_start, keys.char_end)
        np.testing.assert_array_equal(mask, keys.position == 0)
    assert len(both.rows("resid.0", documents=["later-3", "doc-3"])) == int(tokens.lengths[3]) + LENGTHS[3]


def test_sites_and_documents_grow_together_when_every_row_has_every_site(base, tmp_path):
    grow(base, tmp_path / "sites", make_tokens(LENGTHS), ["resid.1"])
    wide = open_store([tmp_path / "base", tmp_path / "sites"])
    later = renamed(make_tokens([20, 11, 38] * 8), "later")
    grow(wide, tmp_path / "documents", later, ["resid.0", "final_norm", "resid.1"])
    all_of_it = open_store([tmp_path / "base", tmp_path / "sites", tmp_path / "documents"])
    assert len(rows_of(all_of_it, "resid.1")) == sum(LENGTHS) + later.num_tokens
    with pytest.raises(StoreConflict, match="All documents need the same sites"):
        open_store([tmp_path / "base", tmp_path / "documents"])


def test_what_does_not_fit_is_refused(base, tmp_path):
    with pytest.raises(StoreConflict, match="share the sites"):
        open_store([tmp_path / "base", tmp_path / "base"])
    other = finish(make_store(tmp_path / "other", LENGTHS, dtype="float32"))
    with pytest.raises(StoreConflict, match="dtype"):
        open_store([tmp_path / "base", other.location])
    with pytest.raises(StoreConflict, match="nothing to add"):
        grow_plan(base, make_tokens(LENGTHS), make_model(), CONFIG, IDENTITY)
    later = renamed(make_tokens([20] * 8), "later")
    fewer = replace(make_model(), sites=make_model().sites[:1])
    with pytest.raises(StoreConflict, match="Name exactly these"):
        grow_plan(base, later, fewer, CONFIG, IDENTITY)
    with pytest.raises(StoreConflict, match=r"differs from .* in model"):
        grow_plan(base, later, replace(make_model(), digest="another"), CONFIG, IDENTITY)
    with pytest.raises(SiteError, match=r"resid\.9"):
        base.rows("resid.9")


def test_documents_are_new_by_their_id_and_may_not_change_their_text(base):
    known = Document(id=base.document_ids[0], text=base.texts[0])
    new = Document(id="new", text="x")
    assert new_documents(base, [known, new]) == (new,)
    with pytest.raises(StoreConflict, match="another text"):
        new_documents(base, [replace(known, text="changed")])
