import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.analyses.sinks import NormHistogram, row_norms, sink_threshold
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import NotEnoughData


def median_in_two_passes(blocks: list[np.ndarray]) -> float:
    first = merge_tree([NormHistogram.of(norms) for norms in blocks])
    upper, rank = first.locate(first.median_rank)
    return merge_tree([NormHistogram.of(norms, upper) for norms in blocks]).norm_at(rank)


floats = st.floats(min_value=0, width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(floats, min_size=1, max_size=40), size=st.integers(1, 40))
def test_lower_median_is_exact_for_any_split(values: list[float], size: int) -> None:
    norms = np.array(values, dtype=np.float32)
    blocks = [norms[i : i + size] for i in range(0, len(norms), size)]
    assert median_in_two_passes(blocks) == np.sort(norms)[(len(norms) - 1) // 2]


def test_odd_counts_agree_with_numpy_median() -> None:
    norms = np.random.default_rng(0).lognormal(size=10_001).astype(np.float32)
    assert median_in_two_passes([norms]) == np.median(norms)


def test_norms_of_narrow_rows_and_the_sink_among_them() -> None:
    rows = np.random.default_rng(1).normal(size=(5000, 16)).astype(ml_dtypes.bfloat16)
    rows[0] *= 100
    norms = row_norms(rows)
    np.testing.assert_allclose(norms, np.linalg.norm(rows.astype(np.float64), axis=1), rtol=1e-6)
    sinks = norms > sink_threshold(median_in_two_passes([norms]))
    assert np.flatnonzero(sinks).tolist() == [0]


def test_refusals() -> None:
    empty = NormHistogram.of(np.zeros(0, dtype=np.float32))
    with pytest.raises(NotEnoughData, match="no rows"):
        _ = empty.median_rank
    with pytest.raises(ValueError, match="None and 3"):
        empty.merge(NormHistogram.of(np.zeros(1, dtype=np.float32), 3))
    with pytest.raises(ValueError, match="first-pass"):
        empty.norm_at(0)
