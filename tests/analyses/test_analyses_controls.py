import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lrh_ray.analyses.auc import auc
from lrh_ray.analyses.controls import NullBand, critical_value, permutation_band, shuffle_labels
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.errors import ConfigError

LEVELS = ("token", "token", "document", "document")
DOCUMENTS = np.repeat(np.arange(40), 6)
EVERYWHERE = np.ones((len(DOCUMENTS), 2), dtype=bool)
EVERYWHERE[DOCUMENTS % 4 == 0, 1] = False  # the last column is defined for three quarters of the documents
POPULATIONS = np.array([0, 0, 0, 1])


def clustered_study(seed: int, signal: float = 0.0, shuffle: bool = True) -> HeldOut:
    """Strong document effects, two token-level and two document-level concepts, ridge on half the documents."""
    rng = np.random.default_rng(seed)
    rows = 2 * rng.normal(size=(40, 6))[DOCUMENTS] + rng.normal(size=(240, 6))
    tokens = (rows[:, :2] * signal + rng.normal(size=(240, 2)) > 0.4).astype(np.float64)
    topics = (rng.normal(size=(40, 2)) > 0).astype(np.float64)[DOCUMENTS]
    labels = np.c_[tokens, topics]
    if shuffle:
        for c, level in enumerate(LEVELS):
            member = EVERYWHERE[:, POPULATIONS[c]]
            labels[:, [c]] = shuffle_labels(labels[:, [c]], member, DOCUMENTS, level, rng)
    train = DOCUMENTS < 20
    moments = LabelledMoments.of(rows, np.zeros(6), labels, EVERYWHERE & train[:, None], POPULATIONS).finalize()
    readout = fit_ridge(moments, np.full((4, 1), 0.1))
    return HeldOut(
        scores=readout.scores(rows[~train]),
        columns=readout.columns,
        labels=labels[~train],
        populations=POPULATIONS,
        members=EVERYWHERE[~train],
        documents=DOCUMENTS[~train] - 20,
        num_documents=20,
    )


def largest_deviation(held_out: HeldOut, band: NullBand) -> float:
    return float(np.abs(band.studentise(auc(held_out, held_out.ones)[0])).max())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_shuffles_permute_units_within_the_population(seed: int) -> None:
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, 40)[DOCUMENTS]
    labels = (topic[:, None] == np.arange(3)).astype(np.float64)
    member = EVERYWHERE[:, 1]
    for level in ("token", "document"):
        shuffled = shuffle_labels(labels, member, DOCUMENTS, level, rng)
        assert np.array_equal(shuffled[~member], labels[~member])
        assert (shuffled.sum(axis=1) == 1).all(), "classes of one concept move together"
        assert np.array_equal(shuffled.sum(axis=0), labels.sum(axis=0)), "documents here have equal lengths"
        if level == "document":
            assert np.array_equal(shuffled, shuffled[DOCUMENTS * 6]), "constant inside documents"


def test_a_label_that_varies_inside_documents_is_no_document_label() -> None:
    labels = np.eye(len(DOCUMENTS))[:, :1]
    with pytest.raises(ValueError, match="varies inside"):
        shuffle_labels(labels, EVERYWHERE[:, 0], DOCUMENTS, "document", np.random.default_rng(0))


def test_draws_are_the_auc_of_shuffled_labels() -> None:
    """Mean and spread of the rank-sum draws equal those of labels shuffled one by one and scored by `auc`."""
    held_out = clustered_study(0)
    band = permutation_band(held_out, LEVELS, draws=3000, seed=1)
    rng = np.random.default_rng(2)
    values = []
    for _ in range(600):
        labels = held_out.labels.copy()
        for c, level in enumerate(LEVELS):
            member = held_out.members[:, POPULATIONS[c]]
            labels[:, [c]] = shuffle_labels(labels[:, [c]], member, held_out.documents, level, rng)
        shuffled = HeldOut(**{name: getattr(held_out, name) for name in HeldOut.__slots__} | {"labels": labels})
        values.append(auc(shuffled, shuffled.ones)[0])
    expected = np.array(values)
    assert (np.abs(band.mean - expected.mean(axis=0)) < 5 * expected.std(axis=0) / np.sqrt(600)).all()
    np.testing.assert_allclose(band.sd, expected.std(axis=0), rtol=0.15)  # 5 sd of 600 draws
    assert band.sd[2] > 1.5 * band.sd[0], "20 documents say less than 120 tokens"


def test_draws_do_not_depend_on_chunks_or_on_other_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = clustered_study(3)
    band = permutation_band(held_out, LEVELS, draws=50, seed=4)
    assert np.array_equal(permutation_band(held_out, LEVELS, draws=50, seed=4).draws, band.draws)
    monkeypatch.setattr("lrh_ray.analyses.controls.CHUNK_FLOATS", 300)
    np.testing.assert_allclose(permutation_band(held_out, LEVELS, draws=50, seed=4).draws, band.draws, rtol=1e-12)
    same_site_twice = critical_value([band, band])
    assert same_site_twice == critical_value([band]), "one permutation for all sites"


def test_family_wise_error_is_five_percent() -> None:
    """Controls of 400 studies: any of 4 concepts leaves the max-T band in 5 % of them (99.9 % binomial interval)."""
    studies = 400
    rejected = 0
    for seed in range(studies):
        held_out = clustered_study(seed)
        band = permutation_band(held_out, LEVELS, draws=199, seed=seed + 10_000)
        rejected += largest_deviation(held_out, band) > critical_value([band])
    low, high = binom.ppf([0.0005, 0.9995], studies, 0.05)
    assert low <= rejected <= high, f"{rejected} of {studies} rejected, allowed {low:.0f} .. {high:.0f}"


def test_a_real_signal_is_rejected() -> None:
    held_out = clustered_study(0, signal=1.0, shuffle=False)
    band = permutation_band(held_out, LEVELS, draws=199, seed=0)
    observed = np.abs(band.studentise(auc(held_out, held_out.ones)[0]))
    assert (observed[:2] > critical_value([band])).all()
    assert (observed[2:] <= critical_value([band])).all(), "topics here have nothing to do with the rows"


def test_scores_without_spread_cannot_be_rejected() -> None:
    held_out = clustered_study(0)
    flat = HeldOut(
        **{name: getattr(held_out, name) for name in HeldOut.__slots__} | {"scores": np.zeros_like(held_out.scores)}
    )
    band = permutation_band(flat, LEVELS, draws=30, seed=0)
    assert (band.sd == 0).all()
    assert largest_deviation(flat, band) == 0
    with pytest.raises(ConfigError, match="5 draws"):
        permutation_band(flat, LEVELS, draws=5, seed=0)
