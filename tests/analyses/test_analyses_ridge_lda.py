import numpy as np
import pytest
from analyses_examples import Example
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from lrh_ray.analyses.lda import fit_lda, fit_multiclass_lda
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.errors import ConfigError, NotEnoughData

RELATIVE = [1e-4, 1e-2, 1.0]


def test_ridge_equals_scikit_learn(example: Example) -> None:
    penalties = absolute_penalties(example.moments, RELATIVE)
    readout = fit_ridge(example.moments, penalties)
    for k in range(15):
        rows, y = example.of_column(k // 3)
        oracle = Ridge(alpha=len(y) * penalties[k // 3, k % 3]).fit(rows, y)
        assert readout.columns[k] == k // 3
        np.testing.assert_allclose(readout.weights[:, k], oracle.coef_, rtol=1e-8, atol=1e-10)
        assert readout.intercepts[k] == pytest.approx(oracle.intercept_, rel=1e-8, abs=1e-10)
        np.testing.assert_allclose(readout.scores(rows)[:, k], oracle.predict(rows), rtol=1e-8, atol=1e-10)


def test_ridge_on_ill_conditioned_rows_predicts_alike(harsh_example: Example) -> None:
    penalties = absolute_penalties(harsh_example.moments, [1e-9])
    readout = fit_ridge(harsh_example.moments, penalties)
    for c in range(5):
        rows, y = harsh_example.of_column(c)
        oracle = Ridge(alpha=len(y) * penalties[c, 0], solver="svd").fit(rows, y)
        np.testing.assert_allclose(readout.scores(rows)[:, c], oracle.predict(rows), atol=1e-6)


def test_least_squares_of_fewer_rows_than_features_has_least_norm(example: Example) -> None:
    part = Example(**{**vars(example), "rows": example.rows[:8], "labels": example.labels[:8, :1]})
    few = Example(**{**vars(part), "members": np.ones((8, 1), dtype=bool), "populations": np.array([0])})
    readout = fit_ridge(few.moments, np.zeros((1, 1)))
    centred = few.rows - few.rows.mean(axis=0)
    expected = np.linalg.pinv(centred) @ (few.labels[:, 0] - few.labels[:, 0].mean())
    np.testing.assert_allclose(readout.weights[:, 0], expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_binary_lda_equals_scikit_learn(example: Example, shrinkage: float) -> None:
    readout = fit_lda(example.moments, shrinkage)
    for c in range(5):
        rows, y = example.of_column(c)
        oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, y)
        np.testing.assert_allclose(readout.weights[:, c], oracle.coef_[0], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(readout.scores(rows)[:, c], oracle.decision_function(rows), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_multiclass_lda_equals_scikit_learn(example: Example, shrinkage: float) -> None:
    readout = fit_multiclass_lda(example.moments, [2, 3, 4], shrinkage)
    inside = example.members[:, 1]
    rows, classes = example.rows[inside], example.labels[inside, 2:].argmax(axis=1)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, classes)
    np.testing.assert_allclose(readout.log_posteriors(rows), oracle.predict_log_proba(rows), rtol=1e-8, atol=1e-8)
    contrast = readout.weights - readout.weights[:, :1]
    np.testing.assert_allclose(contrast.T, oracle.coef_ - oracle.coef_[:1], rtol=1e-7, atol=1e-8)


def test_two_classes_are_one_binary_model(example: Example) -> None:
    labels = np.c_[example.labels[:, 0], 1 - example.labels[:, 0]]
    both = Example(**{**vars(example), "labels": labels, "populations": np.array([0, 0])})
    log_odds = np.diff(-fit_multiclass_lda(both.moments, [0, 1], 0.1).log_posteriors(example.rows), axis=1)[:, 0]
    np.testing.assert_allclose(log_odds, fit_lda(both.moments, 0.1).scores(example.rows)[:, 0], atol=1e-9)


def test_shuffled_labels_learn_nothing(example: Example) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permuted(np.tile(example.labels[:, :1], 200), axis=0)
    null = Example(
        rows=example.rows,
        labels=labels,
        populations=np.zeros(200, dtype=np.int64),
        members=np.ones((700, 1), dtype=bool),
    )
    train, test = np.arange(700) < 350, np.arange(700) >= 350
    readout = fit_ridge(null.state(train).finalize(), np.full((200, 1), 1e-3))
    scores, y = readout.scores(null.rows[test]), labels[test]
    correlation = [np.corrcoef(scores[:, c], y[:, c])[0, 1] for c in range(200)]
    assert abs(np.mean(correlation)) < 4 / np.sqrt(350 * 200)
    real = fit_ridge(example.state(train).finalize(), np.full((5, 1), 1e-3)).scores(example.rows[test])[:, 0]
    assert np.corrcoef(real, example.labels[test, 0])[0, 1] > 0.5


def test_refusals(example: Example) -> None:
    moments = example.moments
    with pytest.raises(ConfigError, match=r"-1\.0"):
        fit_ridge(moments, np.full((5, 1), -1.0))
    with pytest.raises(ConfigError, match=r"shrinkage is 1\.5"):
        fit_lda(moments, 1.5)
    with pytest.raises(ValueError, match="not the classes of one population"):
        fit_multiclass_lda(moments, [2, 3], 0.1)
    separated = Example(**{**vars(example), "rows": np.c_[example.labels[:, :1], example.rows]})
    with pytest.raises(NotEnoughData, match="singular"):
        fit_lda(separated.moments, 0.0)
    constant = example.labels.copy()
    constant[:, 1] = 0
    state = LabelledMoments.of(example.rows, example.shift, constant, example.members, example.populations)
    with pytest.raises(NotEnoughData, match="number 1"):
        fit_lda(state.finalize(), 0.1)
