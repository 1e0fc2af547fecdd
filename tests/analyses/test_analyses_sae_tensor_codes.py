"""Codes as tensors say what codes as arrays say, whatever is absent and whatever is equal."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.mesh import ALONE
from lrh_ray.analyses.sae.preselection import recall_of
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.tensor_codes import TensorCodes

LATENTS = 12


def dense_of(codes):
    full = torch.zeros(len(codes.value), LATENTS, dtype=codes.value.dtype)
    return full.scatter_add(1, codes.index.long(), codes.value).numpy()


@st.composite
def scattered(draw):
    """Values of a few levels, many of them absent, at distinct latents in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, LATENTS))
    index = rng.random((rows, LATENTS)).argsort(axis=1)[:, :width]
    value = rng.integers(-2, 4, (rows, width)).clip(0) / 4
    return TensorCodes(value=torch.from_numpy(value), index=torch.from_numpy(index))


@given(codes=scattered())
def test_order_and_packing_change_no_code(codes):
    expected = dense_of(codes)
    packed = codes.packed()
    assert packed.value.shape[1] == max(1, int((codes.value > 0).sum(dim=1).max()))
    for same in (codes.by_latent(), packed, TensorCodes.of(packed.codes()), codes.largest(codes.value.shape[1])):
        np.testing.assert_array_equal(dense_of(same), expected)
    np.testing.assert_array_equal(packed.codes().dense(LATENTS), expected)


@given(codes=scattered(), k=st.integers(1, LATENTS))
def test_the_largest_are_those_of_sorting_and_of_equal_ones_the_lowest_latents(codes, k):
    expected = np.zeros((len(codes.value), LATENTS))
    for row, own in enumerate(dense_of(codes)):
        for latent in sorted(range(LATENTS), key=lambda at, own=own: (-own[at], at))[:k]:
            expected[row, latent] = own[latent]
    np.testing.assert_array_equal(dense_of(codes.by_latent().largest(k)), expected)


@given(exact=scattered(), k=st.integers(1, LATENTS))
def test_recall_is_the_share_that_sets_of_codes_have(exact, k):
    found = exact.largest(k)
    expected, there = dense_of(exact) > 0, dense_of(found) > 0
    share = (expected & there).sum() / max(1, expected.sum()) if expected.any() else 1.0
    assert recall_of(exact, found, Shard(mesh=ALONE, num_latents=LATENTS)) == share


def test_arrays_are_wrapped_and_not_copied():
    codes = Codes.of(np.eye(3, LATENTS))
    wrapped = TensorCodes.of(codes)
    assert np.shares_memory(wrapped.value.numpy(), codes.value)
    assert np.shares_memory(wrapped.codes().index, codes.index)
