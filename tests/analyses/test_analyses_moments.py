from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from analyses_examples import Example, make_example
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties, require_two_classes
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.analyses.state import merge_tree
from lrh_ray.analyses.tiles import TILE_ROWS
from lrh_ray.errors import ConfigError, NotEnoughData


def assert_same(a: LabelledMoments, b: LabelledMoments, rtol: float) -> None:
    for left, right in ((a.grams, b.grams), (a.positives, b.positives)):
        np.testing.assert_allclose(left, right, rtol=0, atol=rtol * np.abs(right).max())


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 200), max_size=6), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts: list[int], seed: int) -> None:
    data = make_example(num_rows=200, num_features=5, seed=2)
    order = np.random.default_rng(seed).permutation(200)
    edges = sorted({0, 200, *cuts})
    parts = [data.state(order[a:b], data.shift) for a, b in pairwise(edges)]
    assert_same(merge_tree(parts), data.state(), rtol=1e-9)


def test_merge_is_associative(example: Example) -> None:
    a, b, c = (example.state(part, example.shift) for part in (slice(0, 100), slice(100, 450), slice(450, None)))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), rtol=1e-9)


def test_blocks_longer_than_a_tile_agree_with_short_ones() -> None:
    data = make_example(num_rows=TILE_ROWS + 300, num_features=4, seed=3)
    halves = [data.state(slice(0, 1000), data.shift), data.state(slice(1000, None), data.shift)]
    assert_same(merge_tree(halves), data.state(), rtol=1e-9)


def test_moments_equal_numpy_in_every_population(harsh_example: Example) -> None:
    moments = harsh_example.moments
    for p in range(2):
        rows = harsh_example.rows[harsh_example.members[:, p]]
        assert moments.count[p] == len(rows)
        np.testing.assert_allclose(moments.mean[p], rows.mean(axis=0), rtol=1e-12)
        expected = np.cov(rows.T, bias=True)
        np.testing.assert_allclose(moments.covariance[p], expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    for c in range(5):
        rows, y = harsh_example.of_column(c)
        assert moments.positives[c] == y.sum()
        expected = (rows * (y - y.mean())[:, None]).mean(axis=0)
        np.testing.assert_allclose(
            moments.cross_covariance[:, c], expected, rtol=0, atol=1e-11 * np.abs(expected).max()
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_taken_at_their_exact_values(example: Example, dtype: type) -> None:
    rows = example.rows.astype(dtype)
    args = (example.shift, example.labels, example.members, example.populations)
    narrow, wide = LabelledMoments.of(rows, *args), LabelledMoments.of(rows.astype(np.float64), *args)
    assert np.array_equal(narrow.grams, wide.grams)
    assert np.array_equal(narrow.positives, wide.positives)


def test_no_label_columns(example: Example) -> None:
    none = np.zeros((len(example.rows), 0)), example.members, np.zeros(0, dtype=np.int64)
    state = LabelledMoments.of(example.rows, example.shift, *none)
    grams = example.state().grams
    assert np.array_equal(state.grams[:, :-1, :-1], grams[:, :-1, :-1])
    assert np.array_equal(state.grams[:, -1, -1], grams[:, -1, -1])
    assert state.grams == pytest.approx(grams, rel=1e-12)  # sums of rows share a product with the labels
    assert state.finalize().positive_offset.shape == (12, 0)


def test_rows_outside_every_population_are_never_touched(example: Example) -> None:
    rows, members = example.rows.copy(), example.members.copy()
    rows[::7], members[::7] = np.nan, False
    spoiled = LabelledMoments.of(rows, example.shift, example.labels, members, example.populations)
    kept = np.arange(len(rows)) % 7 != 0
    assert_same(spoiled, example.state(kept, example.shift), rtol=1e-12)
    assert_same(spoiled.merge(example.state(slice(0, 0), example.shift)), spoiled, rtol=0)


def test_refusals_say_what_is_missing(example: Example) -> None:
    with pytest.raises(NotEnoughData, match="Population 0 has 1 rows"):
        example.state(slice(0, 1)).finalize()
    rows = example.rows.copy()
    rows[3, 0] = np.nan
    spoiled = LabelledMoments.of(rows, example.shift, example.labels, example.members, example.populations)
    with pytest.raises(NotEnoughData, match="not finite"):
        spoiled.finalize()
    labels = example.labels.copy()
    labels[example.members[:, 1], 3] = 1
    constant = LabelledMoments.of(example.rows, example.shift, labels, example.members, example.populations)
    with pytest.raises(NotEnoughData, match="'topic=b' has"):
        require_two_classes(constant.finalize(), ["number", "capital", "topic=a", "topic=b", "topic=c"])


def test_penalties_scale_with_the_features(example: Example) -> None:
    penalties = absolute_penalties(example.moments, [1e-3, 1.0])
    tenfold = Example(**{**vars(example), "rows": example.rows * 10})
    np.testing.assert_allclose(absolute_penalties(tenfold.moments, [1e-3, 1.0]), 100 * penalties, rtol=1e-9)
    rows, _ = example.of_column(2)
    assert penalties[2, 1] == pytest.approx(rows.var(axis=0).mean(), rel=1e-9)
    with pytest.raises(ConfigError, match="above 0"):
        absolute_penalties(example.moments, [0.0])


def test_fast_sums_of_badly_scaled_rows_keep_the_digits_that_ridge_needs() -> None:
    """bfloat16 rows with two massive dimensions: float32 tiles, shifted first, are as good as float64 to 5e-5."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(20_000, 64)) / np.arange(1, 65) ** 0.9).astype(np.float32)
    rows[:, :2] += (60, -20)
    labels = (rows[:, 2:] @ rng.normal(size=(62, 3)) > 0).astype(np.float64)
    narrow = rows.astype(ml_dtypes.bfloat16)
    shift = narrow[:2000].astype(np.float64).mean(axis=0)
    members, populations = np.ones((len(rows), 1), bool), np.zeros(3, np.int64)
    exact, fast = (
        LabelledMoments.of(narrow, shift, labels, members, populations, word).finalize() for word in ("exact", "fast")
    )
    assert np.linalg.norm(fast.covariance - exact.covariance) < 2e-7 * np.linalg.norm(exact.covariance)
    assert (np.abs(fast.mean - exact.mean) < 1e-6 * rows.std(axis=0)).all()
    np.testing.assert_array_equal(fast.positives, exact.positives)
    weights = [fit_ridge(moments, np.full((3, 1), 1e-6)).weights for moments in (exact, fast)]
    assert np.linalg.norm(weights[1] - weights[0]) < 5e-5 * np.linalg.norm(weights[0])
