"""Laws of the plan: every sequence once, no straddling, the same digest everywhere, little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.errors import CorpusError, DocumentTooLong, StoreConflict
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import open_objects
from lrh_ray.store.packing import pack, size_blocks
from lrh_ray.store.plan import make_plan, read_plan
from lrh_ray.testing.stores import make_model, make_store, make_tokens

lengths_lists = st.lists(st.integers(1, 90), min_size=1, max_size=120)


@given(lengths=lengths_lists, block=st.integers(90, 300), seed=st.integers(0, 5))
def test_every_sequence_stands_in_exactly_one_block(lengths, block, seed):
    packing = pack(lengths, block, seed)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    ends = packing.starts + np.asarray(lengths)[packing.order] - 1
    assert (packing.starts // block == ends // block).all()
    assert (packing.starts[1:] >= ends[:-1] + 1).all()
    assert packing.num_blocks == packing.starts[-1] // block + 1


@given(lengths=lengths_lists, seed=st.integers(0, 5))
def test_a_plan_is_a_function_of_its_inputs(lengths, seed):
    tokens = make_tokens(lengths)
    plans = [make_plan(tokens, make_model(), StoreConfig(sites=("a",), seed=seed), {"corpus": "x"}) for _ in range(2)]
    assert plans[0].digest == plans[1].digest
    other = make_plan(tokens, make_model(), StoreConfig(sites=("a",), seed=seed), {"corpus": "y"})
    assert other.digest != plans[0].digest


def test_blocks_of_32_longest_documents_use_999_of_1000_rows():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 1.0, 20_000), 1, 2048).astype(int)
    packing = pack(lengths, 65_536, seed=0)
    assert packing.num_blocks >= 20
    full = (packing.num_blocks - 1) * 65_536  # the last block holds what is left over
    in_full_blocks = lengths[packing.order][packing.starts < full].sum()
    assert in_full_blocks / full > 0.999


def test_size_keeps_ten_terabytes_under_twenty_thousand_files():
    lengths = np.full(1000, 1000)
    tokens_of_10_tb = 10 * 10**12 // (8192 * 2)
    huge = np.full(100_000, tokens_of_10_tb // 100_000)
    size = size_blocks(huge, row_bytes=8192 * 2, num_sites=1, min_blocks=16, asked=None)
    assert tokens_of_10_tb / size.rows_per_block * 3 < 20_000
    assert size.rows_per_block * 8192 * 2 <= 20 * 10**9
    small = size_blocks(lengths, row_bytes=1152, num_sites=7, min_blocks=16, asked=None)
    assert len(lengths) * 1000 / small.rows_per_block >= 12


def test_a_sequence_longer_than_a_block_is_refused():
    with pytest.raises(DocumentTooLong, match="rows_per_block"):
        pack([10, 500], 100, seed=0)


def test_an_empty_corpus_is_refused():
    with pytest.raises(CorpusError, match="no documents"):
        make_plan(make_tokens([]), make_model(), StoreConfig(sites=("a",)), {})


@settings(max_examples=10, deadline=None)
@given(lengths=lengths_lists)
def test_a_plan_on_disk_is_the_plan_in_memory(lengths, tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("plan") / "store", lengths)
    stored = read_plan(open_objects(fake.root))
    assert stored.digest == fake.plan.digest
    assert stored.sites == fake.plan.sites
    for name in ("source", "starts", "lengths", "valid_rows"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(fake.plan, name))


def test_another_plan_at_the_same_place_is_a_conflict_that_names_the_difference(tmp_path):
    make_store(tmp_path / "store", [10] * 20)
    with pytest.raises(StoreConflict, match="differ in seed"):
        make_store(tmp_path / "store", [10] * 20, seed=1)


def test_a_folder_that_is_no_store_is_not_written_into(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.tex").write_text("x")
    with pytest.raises(StoreConflict, match="not a store"):
        make_store(tmp_path / "store", [10] * 20)
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["thesis.tex"]


def test_a_plan_killed_half_way_is_finished_by_the_next_start(tmp_path):
    fake = make_store(tmp_path / "store", [10] * 20)
    (fake.root / "plan" / "sealed.json").unlink()
    (fake.root / "labels" / "corpus.parquet").unlink()
    make_store(tmp_path / "store", [10] * 20)
    assert (fake.root / "plan" / "sealed.json").exists()
    assert (fake.root / "labels" / "corpus.parquet").exists()
