"""Calibration: maps against scikit-learn, calibration error with a null that holds, the Brier score in parts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from lrh_ray.analyses.auc import auc
from lrh_ray.analyses.calibration import (
    fit_isotonic,
    fit_platt,
    fit_temperature,
    inverse_temperature,
    recalibrated,
    tempered,
)
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.metrics import log_loss
from lrh_ray.analyses.multiplicity import max_t_p_values
from lrh_ray.analyses.reliability import (
    brier,
    brier_parts,
    calibration_error,
    calibration_null,
    equal_mass_bins,
    top_label,
)
from lrh_ray.errors import ConfigError, NotEnoughData


def study(seed: int, num_rows: int = 4000, stretch: float = 1.0, bias: float = 0.0, shared: float = 0.0) -> HeldOut:
    """Two probes whose true log-odds are t; they say `stretch * t + bias`. `shared`: errors that documents share."""
    rng = np.random.default_rng(seed)
    documents = np.repeat(np.arange(num_rows // 20), 20)
    t = 1.5 * rng.normal(size=(num_rows, 2)) - [0.0, 1.0]
    u = rng.random((num_rows, 2))
    common = rng.random((num_rows // 20, 2))[documents]
    u = np.where(rng.random((num_rows, 1)) < shared, common, u)  # still uniform, row by row
    return HeldOut(
        scores=stretch * t + bias,
        columns=np.array([0, 1]),
        labels=(u < expit(t)).astype(np.float64),
        populations=np.array([0, 1]),
        members=np.c_[np.ones(num_rows, dtype=bool), rng.random(num_rows) < 0.7],
        documents=documents,
        num_documents=num_rows // 20,
    )


def own(held_out: HeldOut, k: int) -> tuple[np.ndarray, np.ndarray]:
    inside = held_out.probe_members[:, k]
    return held_out.scores[inside, k], held_out.probe_labels[inside, k]


# --- maps -----------------------------------------------------------------------------------------------------------


def test_platt_equals_scikit_learn_and_undoes_what_was_done() -> None:
    validation = study(1, num_rows=20_000, stretch=3.0, bias=0.8)
    fit = fit_platt(validation)
    for k in range(2):
        scores, labels = own(validation, k)
        peer = _SigmoidCalibration().fit(scores, labels)
        assert fit.slope[k] == pytest.approx(-peer.a_, rel=1e-4)  # its solver stops at a gradient of about 1e-6
        assert fit.intercept[k] == pytest.approx(-peer.b_, abs=1e-4)
    np.testing.assert_allclose(fit.slope, 1 / 3, rtol=0.05)
    np.testing.assert_allclose(fit.intercept, -0.8 / 3, atol=0.08)


def test_platt_stands_at_a_zero_of_its_gradient_whatever_the_scale() -> None:
    base = study(2)
    for scale, offset in ((1.0, 0.0), (1e-6, 0.0), (1e6, 3e6)):
        validation = replace(base, scores=base.scores * scale + offset)
        fit = fit_platt(validation)
        for k in range(2):
            scores, labels = own(validation, k)
            targets = np.where(labels > 0.5, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((1 - labels).sum() + 2))
            error = expit(fit.slope[k] * scores + fit.intercept[k]) - targets
            assert abs(error.mean()) < 1e-8
            assert abs((error * (scores - scores.mean())).mean() / scores.std()) < 1e-8


def test_platt_is_finite_where_scores_separate_the_classes() -> None:
    validation = study(3)
    separated = replace(validation, scores=validation.labels * 2 - 1)
    fit = fit_platt(separated)
    positives = separated.labels[:, 0].sum()
    assert expit(fit.slope[0] + fit.intercept[0]) == pytest.approx((positives + 1) / (positives + 2))
    with pytest.raises(NotEnoughData, match="no temperature"):
        fit_temperature(separated)


def test_constant_scores_become_the_base_rate() -> None:
    flat = replace(study(4), scores=np.full((4000, 2), 7.0))
    fit = fit_platt(flat)
    assert (fit.slope == 0).all()
    np.testing.assert_allclose(expit(fit.intercept[0]), flat.labels[:, 0].mean(), atol=1e-3)
    assert fit_temperature(replace(flat, scores=0 * flat.scores)).slope.tolist() == [0, 0]


def test_temperature_minimises_the_log_loss_and_keeps_decisions() -> None:
    validation = study(5, stretch=2.5)
    fit = fit_temperature(validation)
    assert (fit.intercept == 0).all()
    best = log_loss(recalibrated(validation, fit), validation.ones)
    for factor in (0.99, 1.01):
        other = replace(fit, slope=fit.slope * factor)
        assert (log_loss(recalibrated(validation, other), validation.ones) > best).all()
    fresh = study(105, stretch=2.5)
    after = recalibrated(fresh, fit)
    assert ((after.scores > 0) == (fresh.scores > 0)).all()
    assert (log_loss(after, fresh.ones) < log_loss(fresh, fresh.ones)).all()
    np.testing.assert_allclose(1 / fit.slope, 2.5, rtol=0.1)


def test_temperature_of_several_classes() -> None:
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(20_000, 5))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    inverse = inverse_temperature(log_softmax(4 * logits, axis=1), classes)
    assert inverse == pytest.approx(1 / 4, rel=0.05)
    np.testing.assert_allclose(np.exp(tempered(4 * logits, inverse)).sum(axis=1), 1)
    again = inverse_temperature(tempered(4 * logits, inverse), classes)
    assert again == pytest.approx(1.0, rel=1e-9), "tempered log posteriors need no temperature"
    assert inverse_temperature(-logits, classes) == 0, "logits that say the opposite are best not heard"


def test_isotonic_equals_scikit_learn() -> None:
    validation, fresh = study(7, stretch=3.0), study(107, stretch=3.0)
    fit = fit_isotonic(validation)
    calibrated = recalibrated(fresh, fit)
    for k in range(2):
        peer = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(*own(validation, k))
        np.testing.assert_allclose(expit(calibrated.scores[:, k]), peer.predict(fresh.scores[:, k]), atol=1e-12)
    assert (np.diff(expit(calibrated.scores)[np.argsort(fresh.scores[:, 0]), 0]) >= 0).all()


def test_maps_repair_calibration_on_fresh_rows_and_leave_the_order_alone() -> None:
    validation, fresh = study(8, stretch=3.0, bias=1.0), study(108, stretch=3.0, bias=1.0)
    before = calibration_error(fresh, fresh.ones)[0]
    for fit in (fit_platt(validation), fit_isotonic(validation)):
        after = recalibrated(fresh, fit)
        assert (calibration_error(after, fresh.ones)[0] < before / 3).all()
        np.testing.assert_allclose(auc(after, fresh.ones), auc(fresh, fresh.ones), atol=0.01)


def test_one_class_is_refused_by_every_map() -> None:
    constant = replace(study(9), labels=np.ones((4000, 2)))
    for fit in (fit_platt, fit_temperature, fit_isotonic):
        with pytest.raises(NotEnoughData, match="4000 of them positive"):
            fit(constant)


# --- calibration error ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), num_bins=st.integers(1, 20))
def test_error_is_that_of_the_definition_in_any_order(seed: int, num_bins: int) -> None:
    """With ties: rounded scores share a bin, so the order of rows cannot matter."""
    held_out = study(seed, num_rows=200)
    held_out = replace(held_out, scores=held_out.scores.round(1))
    order = np.random.default_rng(seed + 1).permutation(200)
    shuffled = replace(
        held_out,
        **{name: getattr(held_out, name)[order] for name in ("scores", "labels", "members", "documents")},
    )
    weights = np.random.default_rng(seed + 2).integers(0, 3, size=(3, 10)).astype(np.float64)
    weights[0] = 1
    values = calibration_error(held_out, weights, num_bins)
    np.testing.assert_allclose(calibration_error(shuffled, weights, num_bins), values, atol=1e-12)
    for k in range(2):
        scores, labels = own(held_out, k)
        inside = held_out.probe_members[:, k]
        bins = equal_mass_bins(expit(scores), num_bins)
        for b, w in enumerate(weights[:, held_out.documents[inside]]):
            gaps = [abs((w * (expit(scores) - labels))[bins == own_bin].sum()) for own_bin in range(num_bins)]
            assert values[b, k] == pytest.approx(sum(gaps) / w.sum() if w.sum() else np.nan, nan_ok=True)


def test_bins_have_equal_mass_and_ties_share_one() -> None:
    p = np.random.default_rng(10).random(1000)
    assert np.bincount(equal_mass_bins(p, 15)).tolist() == pytest.approx([1000 / 15] * 15, abs=1)
    assert (np.diff(equal_mass_bins(p, 15)[np.argsort(p)]) >= 0).all()
    assert len(np.unique(equal_mass_bins(np.full(50, 0.3), 15))) == 1


def test_bias_of_a_calibrated_probe_is_that_of_the_formula() -> None:
    """Mean absolute value of a normal: sqrt(2 / pi) times the standard error of each bin, averaged over bins."""
    held_out = study(11, num_rows=6000)
    null = calibration_null(held_out, draws=2000, seed=111, num_bins=10)
    for k in range(2):
        p = expit(own(held_out, k)[0])
        bins = equal_mass_bins(p, 10)
        rows = np.bincount(bins)
        se = np.sqrt(np.bincount(bins, p * (1 - p))) / rows
        assert null[:, k].mean() == pytest.approx(rows @ se / rows.sum() * np.sqrt(2 / np.pi), rel=0.02)


def test_null_holds_for_a_calibrated_probe_and_rejects_another() -> None:
    rejected = 0
    for seed in range(200):
        held_out = study(seed, num_rows=600)
        p_values = max_t_p_values(
            calibration_error(held_out, held_out.ones)[0], calibration_null(held_out, draws=99, seed=seed + 1000)
        )
        rejected += bool(p_values.min() <= 0.05)
    assert 1 <= rejected <= 22, rejected  # 99.9 % binomial interval around 10
    sure = study(12, stretch=1.7)
    assert (max_t_p_values(calibration_error(sure, sure.ones)[0], calibration_null(sure, 199, seed=5)) < 0.01).all()


def test_documents_that_err_together_need_the_null_of_documents() -> None:
    """Each row alone is calibrated, but rows of a document share their luck; drawn labels see errors that are none."""
    rejected = {"token": 0, "document": 0}
    for seed in range(200):
        held_out = study(seed, num_rows=2000, shared=0.8)
        observed = calibration_error(held_out, held_out.ones)[0, :1]
        for level in rejected:
            null = calibration_null(held_out, draws=99, seed=seed + 1000, level=level)[:, :1]
            rejected[level] += bool(max_t_p_values(observed, null)[0] <= 0.05)
    assert rejected["token"] > 60
    assert rejected["document"] <= 22, "99.9 % binomial interval around 10"
    sure = study(13, stretch=2.0, shared=0.8)
    null = calibration_null(sure, 199, seed=6, level="document")
    assert (max_t_p_values(calibration_error(sure, sure.ones)[0], null) < 0.01).all()


def test_null_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = study(14, num_rows=200)
    null = calibration_null(held_out, draws=30, seed=7)
    monkeypatch.setattr("lrh_ray.analyses.reliability.CHUNK_FLOATS", 900)
    np.testing.assert_allclose(calibration_null(held_out, draws=30, seed=7), null, rtol=1e-12)


def test_top_label_of_a_calibrated_model_is_calibrated() -> None:
    rng = np.random.default_rng(15)
    logits = 3 * rng.normal(size=(3000, 4))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    documents = np.repeat(np.arange(150), 20)
    for inverse, calibrated in ((1.0, True), (2.0, False)):
        held_out = top_label(tempered(logits, inverse), classes, documents, 150)
        assert held_out.labels.mean() == pytest.approx((logits.argmax(axis=1) == classes).mean())
        observed = calibration_error(held_out, held_out.ones)[0]
        p = max_t_p_values(observed, calibration_null(held_out, draws=199, seed=8))
        assert (p[0] > 0.05) == calibrated
    certain = top_label(np.log(np.array([[1.0, 1e-300], [0.5, 0.5]])), np.array([0, 1]), np.array([0, 1]), 2)
    assert certain.scores[0, 0] == np.inf
    assert certain.scores[1, 0] == pytest.approx(0)


# --- Brier ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), num_bins=st.integers(1, 20))
def test_parts_add_up_to_the_brier_score(seed: int, num_bins: int) -> None:
    held_out = study(seed, num_rows=300, stretch=2.0)
    parts = brier_parts(held_out, num_bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    np.testing.assert_allclose(total, parts.brier, rtol=1e-12)
    np.testing.assert_allclose(parts.brier, brier(held_out, held_out.ones)[0], rtol=1e-12)
    for k in range(2):
        scores, labels = own(held_out, k)
        assert parts.brier[k] == pytest.approx(brier_score_loss(labels, expit(scores)))
    assert (np.minimum(parts.reliability, parts.resolution) >= 0).all()


def test_parts_say_what_is_wrong() -> None:
    """A stretched probe loses reliability and nothing else; labels that are shuffled lose the resolution."""
    true, stretched = study(16), study(16, stretch=3.0)
    one, other = brier_parts(true), brier_parts(stretched)
    assert (other.reliability > 10 * one.reliability).all()
    np.testing.assert_allclose(other.resolution, one.resolution, rtol=1e-9)
    labels = np.random.default_rng(17).permuted(true.labels, axis=0)
    assert (brier_parts(replace(true, labels=labels)).resolution < one.resolution / 10).all()
    constant = replace(true, scores=np.full((4000, 2), logit(0.5)))
    assert (brier_parts(constant).resolution == 0).all()


def test_refusals() -> None:
    held_out = study(18, num_rows=200)
    with pytest.raises(ConfigError, match="5 draws"):
        calibration_null(held_out, draws=5, seed=0)
    with pytest.raises(ConfigError, match="0 bins"):
        calibration_error(held_out, held_out.ones, num_bins=0)
    nowhere = replace(held_out, members=np.zeros_like(held_out.members))
    with pytest.raises(NotEnoughData, match="Probe 0 has no held-out rows"):
        calibration_error(nowhere, held_out.ones)
