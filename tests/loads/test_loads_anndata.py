"""AnnData gives the chosen rows and the documents' means, and refuses what would not fit."""

import numpy as np
import pytest

from lrh_ray.errors import StoreIncomplete, TooLarge, UnknownName
from lrh_ray.loads.anndata import document_means, to_anndata
from lrh_ray.store.reader import open_store
from lrh_ray.testing.stores import make_store, write_block

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
pytest.importorskip("anndata")


def test_all_rows_with_their_observations(sealed):
    found = to_anndata(sealed.path, "resid.0")
    assert found.X.dtype == np.float32
    assert np.array_equal(found.X, sealed.float32)
    assert found.obs["document"].tolist() == sealed.document.tolist()
    assert found.obs["position"].tolist() == sealed.position.tolist()
    assert found.obs["token_id"].tolist() == sealed.token_id.tolist()
    assert found.obs_names.tolist() == list(map(str, sealed.index))
    assert found.uns["lrh"]["root"] == sealed.store.root
    assert found.uns["lrh"]["plan"] == sealed.store.plan.digest
    assert found.uns["lrh"]["site"] == "resid.0"


def test_a_subset_is_what_the_store_s_own_filters_give(sealed):
    ask = {"documents": ["doc-3", "doc-8"], "positions": range(1, 5)}
    found = to_anndata(sealed.store, "final_norm", **ask)
    assert np.array_equal(found.X, sealed.store.rows("final_norm", **ask))
    assert set(found.obs["document"]) <= {"doc-3", "doc-8"}
    assert to_anndata(sealed.store, "resid.0", positions=range(900, 901)).shape == (0, 24)
    with pytest.raises(UnknownName, match="doc-99"):
        to_anndata(sealed.store, "resid.0", documents=["doc-99"])


def test_sinks_can_be_left_out(sealed):
    kept = to_anndata(sealed.store, "resid.0", sinks="drop")
    assert np.array_equal(kept.X, sealed.store.rows("resid.0", sinks="drop"))


def test_means_of_documents(sealed):
    found = document_means(sealed.path, "resid.0")
    for name in ("doc-0", "doc-3", "doc-46"):
        mine = sealed.document == name
        expected = sealed.float32[mine].astype(np.float64).mean(axis=0)
        assert np.allclose(found[name].X, expected, rtol=1e-6, atol=1e-7)  # one rounding to float32
        assert int(found.obs.loc[name, "rows"]) == mine.sum()
    assert found.obs["document"].tolist() == list(dict.fromkeys(sealed.document.tolist()))


def test_more_than_the_limit_is_refused_before_it_is_read(sealed):
    with pytest.raises(TooLarge, match=r"limit is 1,000.*open_dask"):
        to_anndata(sealed.store, "resid.0", max_bytes=1000)
    with pytest.raises(TooLarge, match="the limit is 100"):
        document_means(sealed.store, "resid.0", max_bytes=100)
    fits = to_anndata(sealed.store, "resid.0", positions=range(1), max_bytes=48 * 24 * 4)
    assert fits.shape == (48, 24)


def test_an_unfinished_store_is_refused(tmp_path):
    fake = make_store(tmp_path / "store", [20] * 20)
    write_block(fake, 0)
    with pytest.raises(StoreIncomplete):
        document_means(open_store(fake.root), "resid.0")
