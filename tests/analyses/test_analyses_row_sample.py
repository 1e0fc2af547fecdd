"""A sample of rows is the same for any split of the rows, uniform, and never larger than asked for."""

from itertools import pairwise

import numpy as np
import pytest

from lrh_ray.analyses.row_sample import RowSample
from lrh_ray.analyses.state import merge_tree

N, MOST = 400, 12


def rows(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((N, 3)) < (0.5, 0.02, 1.0), rng.random(N)


def of(strata, priorities, part=slice(None)):
    index = np.arange(N)[part]
    return RowSample.of(strata[part], priorities[part], index, index // 10, most=MOST)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 3, 200), tuple(range(20, N, 20))])
def test_any_split_gives_the_rows_of_least_priority(cuts):
    strata, priorities = rows()
    ends = [0, *cuts, N]
    found = merge_tree(of(strata, priorities, slice(*both)) for both in pairwise(ends))
    np.testing.assert_array_equal(found.count, strata.sum(axis=0))
    for stratum in range(3):
        inside = np.flatnonzero(strata[:, stratum])
        wanted = inside[np.argsort(priorities[inside])][:MOST]
        own = found.of_stratum(stratum)
        np.testing.assert_array_equal(own.index, wanted)
        np.testing.assert_array_equal(own.document, wanted // 10)


def test_every_row_is_as_likely_as_any_other():
    """2,000 samples of 12 of about 200 rows: counts spread as binomial ones do."""
    strata, _ = rows()
    counts, inside = np.zeros(N), strata[:, 0]
    for seed in range(2000):
        counts[of(strata, np.random.default_rng(seed).random(N)).of_stratum(0).index] += 1
    assert counts[~inside].sum() == 0
    share = MOST / inside.sum()
    spread = counts[inside].var() / (2000 * share * (1 - share))
    assert 0.8 < spread < 1.2
