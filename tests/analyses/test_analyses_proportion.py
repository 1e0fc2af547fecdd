"""Wilson's interval is SciPy's, and wide enough for means of numbers between 0 and 1."""

import numpy as np
import pytest
from scipy.stats import binomtest

from lrh_ray.analyses.proportion import wilson


@pytest.mark.parametrize(("part", "whole"), [(0, 7), (7, 7), (3, 11), (2040, 2048)])
def test_the_interval_is_scipys(part, whole):
    found, oracle = wilson(part / whole, whole), binomtest(part, whole).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_nothing_has_no_share():
    found = wilson(0.0, 0)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


def test_means_of_shares_lie_inside_at_least_as_often():
    rng = np.random.default_rng(0)
    means = rng.binomial(8, 0.9, (300, 50)).mean(axis=1) / 8
    assert np.mean([wilson(mean, 50).low <= 0.9 <= wilson(mean, 50).high for mean in means]) >= 0.95
