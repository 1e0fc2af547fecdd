"""Many tests at once: which of them may be believed.

    permutation_p_values(observed, draws) # each test by itself
    max_t_p_values(observed, draws)       # family-wise: dependence between tests costs nothing
    benjamini_hochberg(p_values)          # false discovery rate
    equivalent(low, high, target, margin) # shown to be as large as, not merely "not shown to differ"

A test that is not significant has not shown that there is nothing. Equivalence turns the question round: the whole
interval must lie within `margin` of the target (two one-sided tests; Schuirmann 1987).
"""

import numpy as np
from scipy.stats import false_discovery_control

from lrh_ray.analyses.layouts import NullDraws, Targets, TestMask
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import NotEnoughData


def max_t_p_values(observed: Targets, draws: NullDraws) -> Targets:
    """P values [K] of one-sided tests, adjusted for all of them (Westfall and Young 1993).

    `draws` [B, K] are the tests' values under the null, all of a draw from one arrangement of the data. Values are
    compared in units of each test's own null spread, with the largest of every draw; a test without spread has p = 1.

    Raises:
        NotEnoughData: Fewer than 20 draws, which could not make any p value less than .05.
    """
    if len(draws) < 20:
        raise NotEnoughData(f"{len(draws)} null draws cannot show anything at the 5 % level; take at least 20.")
    mean, spread = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    largest = ratio(draws - mean, spread, otherwise=0.0).max(axis=1)
    scores = ratio(observed - mean, spread, otherwise=-np.inf)
    return np.asarray((1 + (largest[:, None] >= scores).sum(axis=0)) / (len(draws) + 1))


def permutation_p_values(observed: Targets, draws: NullDraws) -> Targets:
    """P values [K] of one-sided tests, each for itself: (1 + draws as large) / (1 + draws); 1 where either is NaN."""
    larger = ~(draws < observed)
    return np.asarray((1 + larger.sum(axis=0)) / (len(draws) + 1))


def benjamini_hochberg(p_values: Targets) -> Targets:
    """Adjusted p values: those at most q are a set with a false discovery rate of at most q (1995; independence)."""
    return np.asarray(false_discovery_control(p_values, method="bh"))


def equivalent(low: Targets, high: Targets, target: float, margin: float) -> TestMask:
    """Whether the 90 % interval [low, high] of each test lies within `margin` of the target: equivalence at 5 %."""
    return np.asarray((low > target - margin) & (high < target + margin))
