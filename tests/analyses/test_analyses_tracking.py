"""R^2 of a belief on documents not fitted, and the jackknife that gives its interval."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.worlds.tracking import track
from lrh_ray.errors import ConfigError, NotEnoughData

GROUPS = 8


@pytest.fixture(scope="module")
def rows():
    """Features, targets that are partly linear in them, and the document of each row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6)) + 5
    y = x @ rng.normal(size=(6, 3)) + rng.normal(size=(4000, 3)) * 2
    return x, y, np.repeat(np.arange(80), 50), np.tile(np.arange(50), 80)


def tracked(x, y, document, place):
    return track(x, y, document % GROUPS, place * 5 // 50, num_groups=GROUPS, num_stretches=5)


def by_hand(x, y, document, keep):
    """scikit-learn's R^2, each half of the groups judged by the fit of the other."""
    halves = [(document % GROUPS % 2 == half) for half in range(2)]
    scores = []
    for fit, judge in (halves, halves[::-1]):
        fitted = LinearRegression().fit(x[fit], y[fit])
        at = judge & keep
        scores.append(r2_score(y[at], fitted.predict(x[at]), multioutput="variance_weighted"))
    return np.mean(scores)


def test_r_squared_equals_scikit_learn(rows):
    x, y, document, place = rows
    found = tracked(*rows)
    assert found.total.value == pytest.approx(by_hand(x, y, document, np.ones(len(x), bool)), abs=1e-7)
    for stretch, value in enumerate(found.stretches):
        assert value == pytest.approx(by_hand(x, y, document, place * 5 // 50 == stretch), abs=1e-7)


def test_order_of_rows_does_not_matter(rows):
    order = np.random.default_rng(1).permutation(len(rows[0]))
    assert tracked(*(part[order] for part in rows)).total.value == pytest.approx(tracked(*rows).total.value, abs=1e-9)


def test_shuffled_rows_hold_nothing(rows):
    x, y, document, place = rows
    strangers = np.random.default_rng(2).permutation(len(x))
    total = tracked(x[strangers], y, document, place).total
    assert abs(total.value) < 0.01
    assert total.low < 0.005


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Rows of one document share noise; the share of intervals that hold the R^2 of endless data is about 95 %."""
    rng = np.random.default_rng(3)
    truth, inside, trials = 1 / 2.25, 0, 120
    for _ in range(trials):
        document = np.repeat(np.arange(64), 10)
        x = rng.normal(size=(640, 1))
        noise = rng.normal(size=(64, 1))[document] + 0.5 * rng.normal(size=(640, 1))
        everywhere = np.zeros(640, np.int64)
        total = track(x, x + noise, document % GROUPS, everywhere, num_groups=GROUPS, num_stretches=1).total
        inside += total.low <= truth <= total.high
    assert inside / trials > 0.88  # 95 % less three standard errors and the bias of the fit


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(4).normal(size=30)
    found = jackknife_interval(values.mean(), [np.delete(values, i).mean() for i in range(30)])
    reach = 2.0452296 * values.std(ddof=1) / np.sqrt(30)  # t of 29 degrees of freedom
    assert found.high - found.value == pytest.approx(reach, rel=1e-6)
    assert found.value - found.low == pytest.approx(reach, rel=1e-6)


def test_intervals_apart():
    low, high = Estimate(value=0.1, low=0.0, high=0.2), Estimate(value=0.5, low=0.3, high=0.7)
    assert low.apart_from(high)
    assert high.apart_from(low)
    assert not low.apart_from(Estimate(value=0.3, low=0.2, high=0.4))


def test_too_little_is_refused(rows):
    x, y, document, place = rows
    with pytest.raises(ConfigError, match="num_groups"):
        track(x, y, document % 2, place, num_groups=2, num_stretches=50)
    with pytest.raises(NotEnoughData, match="jackknife"):
        jackknife_interval(0.0, [0.0])
