"""The table of tokens: counts of any cut, odds that a reader can work out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.state import merge_tree
from lrh_ray.analyses.token_counts import TokenCounts


def drawn(seed, num=300):
    rng = np.random.default_rng(seed)
    tokens = rng.zipf(1.6, num).clip(max=50).astype(np.int32)
    labels = (rng.random((num, 3)) < [0.5, 0.1, 0.9]).astype(np.float64)
    members = np.column_stack([np.ones(num, bool), rng.random(num) < 0.6])
    return tokens, labels, members, np.array([0, 0, 1])


@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_blocks_may_be_cut_anywhere(seed, cuts):
    tokens, labels, members, populations = drawn(seed)
    edges = sorted({0, 300, *cuts})
    parts = [
        TokenCounts.of(tokens[first:stop], labels[first:stop], members[first:stop], populations)
        for first, stop in pairwise(edges)
    ]
    whole, merged = TokenCounts.of(tokens, labels, members, populations), merge_tree(parts)
    for name in ("tokens", "rows", "positives"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(merged, name))


def test_odds_are_those_of_counted_rows_and_unseen_tokens_have_the_rate():
    tokens, labels, members, populations = drawn(0)
    counts = TokenCounts.of(tokens, labels, members, populations)
    found = counts.log_odds(np.array([1, 7, 999], dtype=np.int32))
    for column in range(3):
        inside = members[:, populations[column]]
        rate = (labels[inside, column].sum() + 0.5) / (inside.sum() + 1)
        for place, token in enumerate((1, 7, 999)):
            own = labels[inside & (tokens == token), column]
            expected = np.log((own.sum() + rate) / (len(own) - own.sum() + 1 - rate))
            assert found[place, column] == pytest.approx(expected)


def test_labels_that_tokens_do_not_tell_are_not_told():
    tokens, labels, members, populations = drawn(1, num=20_000)
    half = TokenCounts.of(tokens[:10_000], labels[:10_000], members[:10_000], populations)
    scores = half.log_odds(tokens[10_000:])[:, 0]
    positive = labels[10_000:, 0] > 0.5
    assert abs(np.mean(scores[positive]) - np.mean(scores[~positive])) < 0.01
