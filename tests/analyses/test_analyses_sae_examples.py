"""The rows with the largest codes of each latent: any split, an oracle that sorts, ties."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.examples import TopExamples
from lrh_ray.analyses.state import merge_tree

ROWS, LATENTS, NUM = 120, 7, 4
FIELDS = ("value", "row", "sequence")


def drawn(seed):
    """Codes of few different values, so that most are ties; numbers of rows with gaps; sequences of unequal length."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 5, (ROWS, LATENTS)).astype(np.float32) * (rng.random((ROWS, LATENTS)) < 0.4)
    dense[:, 3] = 0
    rows = np.sort(rng.permutation(10 * ROWS)[:ROWS])
    return dense, rows, np.sort(rng.integers(0, 25, ROWS))


def examples(dense, rows, sequences):
    return TopExamples.of(Codes.of(dense), rows, sequences, num_latents=LATENTS, num=NUM)


@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, ROWS), max_size=4), backwards=st.booleans())
def test_rows_may_be_split_anywhere_and_come_in_any_order(seed, cuts, backwards):
    dense, rows, sequences = drawn(seed)
    edges = sorted({0, ROWS, *cuts})
    parts = [examples(dense[a:b], rows[a:b], sequences[a:b]) for a, b in pairwise(edges)]
    merged, whole = merge_tree(parts[::-1] if backwards else parts), examples(dense, rows, sequences)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name), err_msg=name)


def test_they_are_what_sorting_gives():
    dense, rows, sequences = drawn(0)
    found = examples(dense, rows, sequences)
    for latent in range(LATENTS):
        seen, expected = set(), []
        for value, row, sequence in sorted(zip(-dense[:, latent], rows, sequences, strict=True)):
            if value < 0 and sequence not in seen:
                seen.add(sequence)
                expected.append((-value, row, sequence))
        expected = expected[:NUM] + [(0, -1, -1)] * (NUM - len(expected[:NUM]))
        assert list(zip(*(getattr(found, name)[latent] for name in FIELDS), strict=True)) == expected


def test_sparse_codes_are_the_positive_ones():
    dense, _, _ = drawn(1)
    dense[5] = -1
    codes = Codes.of(dense)
    np.testing.assert_array_equal(codes.dense(LATENTS), np.maximum(dense, 0))
    assert codes.num == (dense > 0).sum()
    assert Codes.of(np.zeros((3, 4), np.float32)).value.shape == (3, 0)
