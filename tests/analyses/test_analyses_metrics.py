import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from lrh_ray.analyses.auc import auc, midranks
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.metrics import (
    accuracy,
    base_rate_log_loss,
    log_loss,
    majority_accuracy,
    multiclass_accuracy,
    multiclass_log_loss,
)


def make_held_out(seed: int, num_rows: int = 120, num_documents: int = 15, ties: bool = True) -> HeldOut:
    """Two columns in two populations, three probes; scores rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(num_rows, 3))
    return HeldOut(
        scores=np.round(scores, 1) if ties else scores,
        columns=np.array([0, 1, 1]),
        labels=(rng.random((num_rows, 2)) < [0.3, 0.6]).astype(np.float64),
        populations=np.array([0, 1]),
        members=np.c_[np.ones(num_rows, dtype=bool), rng.random(num_rows) < 0.6],
        documents=np.sort(rng.integers(0, num_documents, num_rows)),
        num_documents=num_documents,
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_every_metric_under_any_weights_equals_scikit_learn(seed: int, ties: bool) -> None:
    held_out = make_held_out(seed, ties=ties)
    weights = np.random.default_rng(seed).integers(1, 4, size=(3, held_out.num_documents)).astype(np.float64)
    values = accuracy(held_out, 0.0, weights), log_loss(held_out, weights), auc(held_out, weights)
    for b in range(3):
        for k, c in enumerate(held_out.columns):
            inside = held_out.members[:, held_out.populations[c]]
            y, t = held_out.labels[inside, c], held_out.scores[inside, k]
            w = weights[b, held_out.documents[inside]]
            assert values[0][b, k] == pytest.approx(accuracy_score(y, t > 0, sample_weight=w))
            assert values[1][b, k] == pytest.approx(sklearn_log_loss(y, 1 / (1 + np.exp(-t)), sample_weight=w))
            assert values[2][b, k] == pytest.approx(roc_auc_score(y, t, sample_weight=w))


def test_a_weight_is_a_repetition() -> None:
    held_out = make_held_out(1)
    twice = (held_out.documents == 4) | (held_out.documents == 9)
    rows = np.r_[np.arange(len(twice)), np.flatnonzero(twice)]
    repeated = HeldOut(
        scores=held_out.scores[rows],
        columns=held_out.columns,
        labels=held_out.labels[rows],
        populations=held_out.populations,
        members=held_out.members[rows],
        documents=held_out.documents[rows],
        num_documents=held_out.num_documents,
    )
    weights = held_out.ones
    weights[0, [4, 9]] = 2
    for metric in (auc, log_loss):
        np.testing.assert_allclose(metric(held_out, weights), metric(repeated, repeated.ones), rtol=1e-12)


def test_both_ways_to_weigh_pairs_agree_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 draws of 15 documents count pairs by document, 10 draws by draw."""
    held_out = make_held_out(2)
    weights = np.random.default_rng(0).poisson(1.0, size=(40, 15)).astype(np.float64)
    whole = auc(held_out, weights)
    np.testing.assert_allclose(auc(held_out, weights[:10]), whole[:10], rtol=1e-12)
    monkeypatch.setattr("lrh_ray.analyses.auc.CHUNK_FLOATS", 500)
    assert np.array_equal(auc(held_out, weights), whole, equal_nan=True)
    np.testing.assert_allclose(auc(held_out, weights[:10]), whole[:10], rtol=1e-12)


def test_a_draw_without_a_class_has_no_auc() -> None:
    held_out = make_held_out(3)
    weights = np.zeros((1, 15))
    assert np.isnan(auc(held_out, weights)).all()
    assert np.isnan(accuracy(held_out, 0.0, weights)).all()


def test_midranks() -> None:
    np.testing.assert_array_equal(midranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1.0, 3.5, 2.0])


def test_multiclass_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    posteriors = rng.dirichlet(np.ones(3), size=60)
    classes, documents = rng.integers(0, 3, 60), np.repeat(np.arange(6), 10)
    weights = rng.integers(1, 3, size=(1, 6)).astype(np.float64)
    w = weights[0, documents]
    loss = multiclass_log_loss(np.log(posteriors), classes, documents, weights)
    assert loss.item() == pytest.approx(sklearn_log_loss(classes, posteriors, sample_weight=w, labels=[0, 1, 2]))
    hits = multiclass_accuracy(np.log(posteriors), classes, documents, weights)
    assert hits.item() == pytest.approx(accuracy_score(classes, posteriors.argmax(axis=1), sample_weight=w))


def test_baselines_know_only_the_training_rate() -> None:
    held_out, rate = make_held_out(5), np.array([0.2, 0.7])
    y0, y1 = held_out.labels[:, 0], held_out.labels[held_out.members[:, 1], 1]
    np.testing.assert_allclose(majority_accuracy(rate, held_out), [1 - y0.mean(), y1.mean(), y1.mean()])
    loss = [-np.mean(y * np.log(r) + (1 - y) * np.log(1 - r)) for y, r in ((y0, 0.2), (y1, 0.7), (y1, 0.7))]
    np.testing.assert_allclose(base_rate_log_loss(rate, held_out), loss)
