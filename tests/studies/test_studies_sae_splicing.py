"""Reconstructions in place of rows: a perfect one costs the model nothing, the mean row what it is said to cost."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.errors import ConfigError
from lrh_ray.store.reader import open_sealed
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.sae_passes import TRAINING, SaeRows
from lrh_ray.studies.sae_splice_result import splice_measures
from lrh_ray.studies.sae_splicing import (
    CLEAN,
    DIVERGENCE,
    DIVERGENCE_OF_MEAN,
    MEAN,
    SPLICED,
    TOKENS,
    SpliceTask,
    held_out_documents,
)
from lrh_ray.studies.sae_study import autoencoders
from lrh_ray.studies.weights import find_checkpoint

SITE = "resid.1"
QUICK = (
    *("sae.latents=32", "sae.steps=20", "sae.batch_rows=64", "sae.groups=4", "sae.held_out=0.4", "sae.sinks=keep"),
    *(
        f"store.sites=[{SITE}]",
        f"sae.sites=[{SITE}]",
        "sae.kinds=[{kind: topk, k: 4}]",
        "sae.workers={workers: 1, cpus: 1}",
    ),
)


@dataclass(frozen=True)
class Same:
    """Rows are their own codes."""

    def codes(self, rows):
        return rows

    def decode(self, codes, rows):
        return codes


@dataclass(frozen=True)
class Constant:
    """Every row is the same one."""

    row: np.ndarray

    def codes(self, rows):
        return rows

    def decode(self, codes, rows):
        return torch.from_numpy(np.broadcast_to(self.row, codes.shape).copy())


@pytest.fixture(scope="module")
def config(material, tmp_path_factory, cluster):
    runs = tmp_path_factory.mktemp("spliced")
    found = config_of(material, "name=spliced", f"runs={runs}", "model.dtype=float32", *QUICK)
    extract(found, folder=material)
    return found


def splicing(config, documents, *readers, centre=None):
    """Sums of documents with each reader's rows at the site; `centre` stands for the mean row."""
    store = open_sealed(config.store_location)
    group = np.zeros(len(store.document_ids), np.int64)
    rows = SaeRows(location=config.store_location, root=store.root, group=group, sinks="keep")
    task = SpliceTask(
        checkpoint=find_checkpoint(config.model),
        model=config.model,
        digest=store.plan.identity["model"]["digest"],
        rows=rows,
        documents=documents,
        readers={SITE: readers},
        centres={SITE: np.zeros(store.plan.site(SITE).width) if centre is None else centre},
    )
    return task(SITE)


def test_losses_are_those_of_the_rows_that_are_put_in(config):
    store = open_sealed(config.store_location)
    centre = np.full(store.plan.site(SITE).width, 0.3, np.float32)
    documents = ((0,), (2,), (3,))
    same, constant = splicing(config, documents, Same(), Constant(centre), centre=centre)
    assert (same[:, TOKENS] == [store.plan.lengths[sequence] - 1 for (sequence,) in documents]).all()
    np.testing.assert_allclose(same[:, SPLICED], same[:, CLEAN], rtol=1e-5)
    assert np.abs(same[:, DIVERGENCE] / same[:, TOKENS]).max() < 1e-6
    np.testing.assert_allclose(constant[:, SPLICED], constant[:, MEAN], rtol=1e-6)
    assert (constant[:, DIVERGENCE] > 0).all()
    np.testing.assert_allclose(constant[:, DIVERGENCE], constant[:, DIVERGENCE_OF_MEAN], rtol=1e-5)
    np.testing.assert_allclose(same[:, DIVERGENCE_OF_MEAN], constant[:, DIVERGENCE_OF_MEAN])
    np.testing.assert_allclose(same[:, CLEAN], constant[:, CLEAN])
    assert not np.allclose(same[:, CLEAN], same[:, MEAN], rtol=1e-3)


def test_sequences_of_one_document_are_one_document(config):
    whole, parts = splicing(config, ((0, 1), (2,)), Same()), splicing(config, ((0,), (1,), (2,)), Same())
    np.testing.assert_allclose(whole[0], [parts[0, 0] + parts[0, 1], parts[0, 2]])


def test_documents_are_held_out_with_all_their_sequences():
    ids = [f"d{i // 3}" for i in range(30)]  # three pieces each
    lengths = np.full(30, 8)
    lengths[[2, 5, 8]] = 1  # nothing follows a single token
    group = np.where(np.arange(30) < 18, np.arange(30) // 3 % 2, TRAINING)
    rows = SaeRows(location="", root="", group=group, sinks="keep")
    for seed in range(4):
        found = held_out_documents(rows, ids, lengths, 4, seed=seed)
        assert len(found) == 4
        assert {len({ids[sequence] for sequence in own}) for own in found} == {1}
        for own in found:
            every = [s for s in range(18) if ids[s] == ids[own[0]] and lengths[s] > 1]
            assert list(own) == every
    assert len({held_out_documents(rows, ids, lengths, 4, seed=seed) for seed in range(4)}) > 1
    assert len(held_out_documents(rows, ids, lengths, 99, seed=0)) == 6


def test_the_share_recovered_is_reported_with_what_it_is_a_share_of(config, material):
    found = load_result(autoencoders(config_of(material, *_same(config), "sae.splice_documents=3")))
    (share,) = [m for m in found.measures if m.name == "ce_recovered"]
    told = share.controls
    spared = (told["loss_of_mean"] - told["loss_spliced"]) / (told["loss_of_mean"] - told["loss"])
    assert share.value == pytest.approx(spared)
    assert share.low <= share.value <= share.high
    (divergence,) = [m for m in found.measures if m.name == "kl_divergence"]
    assert 0 < divergence.value < divergence.controls["divergence_of_mean"]
    assert divergence.low <= divergence.value <= divergence.high
    for one in (share, divergence):
        assert one.value != one.controls["untrained"]
    assert divergence.controls["untrained"] > 0


def test_first_weights_stand_beside_what_training_made_of_them():
    """Sums of two autoencoders, then of their first weights: each beside its own."""

    def sums(loss, divergence):
        return [[10, 20.0, loss, 60.0, divergence, 30.0], [10, 22.0, loss + 2, 62.0, divergence, 30.0]]

    losses = np.array([sums(24, 4.0), sums(40, 12.0), sums(48, 20.0), sums(56, 28.0)])
    found = {(m.name, m.keys["autoencoder"]): m for m in splice_measures({"site": SITE}, ["one", "two"], losses)}
    told = found["ce_recovered", "two"]
    assert told.value == pytest.approx(0.5)
    assert told.controls == pytest.approx({"loss": 2.1, "loss_spliced": 4.1, "loss_of_mean": 6.1, "untrained": 0.1})
    assert found["ce_recovered", "one"].controls["untrained"] == pytest.approx(0.3)
    told = found["kl_divergence", "one"]
    assert (told.value, told.low, told.high) == pytest.approx((0.4, 0.4, 0.4))
    assert told.controls == pytest.approx({"divergence_of_mean": 3.0, "untrained": 2.0})


def test_one_document_has_no_interval(config, material):
    with pytest.raises(ConfigError, match="splice_documents"):
        config_of(material, *_same(config), "sae.splice_documents=1")


def _same(config):
    return f"name={config.name}", f"runs={config.runs}", "model.dtype=float32", *QUICK
