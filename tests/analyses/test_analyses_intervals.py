import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.intervals import DocumentBootstrap, percentile_interval, simultaneous_interval
from lrh_ray.analyses.metrics import mean_over_documents
from lrh_ray.errors import ConfigError, NotEnoughData


@given(draws=st.integers(2, 30), seed=st.integers(0, 2**31), documents=st.integers(2, 50))
def test_draws_are_a_function_of_seed_and_number_of_documents(draws: int, seed: int, documents: int) -> None:
    weights = DocumentBootstrap(draws=draws, seed=seed).weights(documents)
    assert weights.shape == (draws, documents)
    assert (weights.sum(axis=1) == documents).all()
    assert np.array_equal(weights, DocumentBootstrap(draws=draws, seed=seed).weights(documents))


def test_standard_error_of_a_clustered_mean() -> None:
    """The bootstrap spread of a mean is the spread of document means, not of rows: equal rows are one observation."""
    means = np.random.default_rng(0).normal(size=80)
    values, documents = np.repeat(means, 10)[:, None], np.repeat(np.arange(80), 10)
    sample = DocumentBootstrap(draws=4000, seed=1).apply(
        lambda weights: mean_over_documents(values, np.ones_like(values, dtype=bool), documents, weights), 80
    )
    assert sample.draws.std() == pytest.approx(means.std() / np.sqrt(80), rel=0.06)  # 5 sd of 4000 draws
    assert sample.estimates[0] == pytest.approx(means.mean())


def test_coverage_pointwise_and_simultaneous() -> None:
    """60 documents, 8 correlated shares, some near 1: 95 % intervals of 300 samples hold about as often as they say."""
    rng, bootstrap = np.random.default_rng(2), DocumentBootstrap(draws=400, seed=3)
    truth = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97])
    weights = bootstrap.weights(60) / 60
    pointwise, joint = np.zeros(8), 0
    for _ in range(300):
        values = rng.beta(20 * truth, 20 * (1 - truth), size=(60, 8))
        draws = weights @ values
        narrow, band = percentile_interval(draws), simultaneous_interval(values.mean(axis=0), draws)
        pointwise += (narrow.low <= truth) & (truth <= narrow.high)
        joint += bool(((band.low <= truth) & (truth <= band.high)).all())
        assert (band.high - band.low > narrow.high - narrow.low).all()
    # 99.9 % binomial half-width at 300 samples is 0.042; the bootstrap's own bias at 60 documents is about 0.01
    assert (np.abs(pointwise / 300 - 0.95) < 0.055).all()
    assert abs(joint / 300 - 0.95) < 0.055


def test_band_composes_over_sites() -> None:
    """Columns side by side need a wider band than either alone, and identical sites no wider one."""
    draws = np.random.default_rng(4).normal(0.7, 0.03, size=(500, 6))
    estimates = np.full(6, 0.7)
    alone = simultaneous_interval(estimates, draws)
    doubled = simultaneous_interval(np.tile(estimates, 2), np.tile(draws, 2))
    np.testing.assert_allclose(doubled.low, np.tile(alone.low, 2), rtol=1e-12)
    single = simultaneous_interval(estimates[:1], draws[:, :1])
    assert single.low[0] > alone.low[0]


@pytest.mark.parametrize("scale", ["unit", "real"])
def test_degenerate_and_undefined_columns_are_flagged(scale: str) -> None:
    draws = np.random.default_rng(5).uniform(0.9, 1.0, size=(200, 4))
    draws[:, 1], draws[:, 2], draws[:50, 3] = 1.0, np.nan, np.nan
    for interval in (
        simultaneous_interval(np.array([0.95, 1, np.nan, 0.95]), draws, scale=scale),
        percentile_interval(draws),
    ):
        assert interval.degenerate.tolist() == [False, True, True, False]
        assert np.isnan(interval.low).tolist() == [False, True, True, False]
        assert interval.undefined.tolist() == [0, 0, 1, 0.25]
        if scale == "unit":
            assert interval.high[0] <= 1


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="1 draws"):
        DocumentBootstrap(draws=1, seed=0)
    with pytest.raises(NotEnoughData, match="1 held-out documents"):
        DocumentBootstrap(draws=10, seed=0).weights(1)
    with pytest.raises(ConfigError, match="level"):
        percentile_interval(np.zeros((3, 1)), level=1.0)
