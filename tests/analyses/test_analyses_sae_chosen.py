"""Which latents people look at, and which rows: rules that nobody can tune, one answer for any split of the rows."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.analyses.sae.chosen import by_chance, chosen_codes, spread_by_density
from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.examples import TopExamples
from lrh_ray.analyses.state import merge_tree

COUNTS = st.lists(st.integers(0, 30), max_size=60).map(np.array)


@given(fired=COUNTS, num=st.integers(1, 12), least=st.integers(1, 8))
def test_one_of_each_equal_part_of_the_ranking(fired, num, least):
    """Oracle: sort, cut, take the middle."""
    found = spread_by_density(fired.astype(np.int64), num=num, least=least)
    ranked = sorted((i for i in range(len(fired)) if fired[i] >= least), key=lambda i: (-fired[i], i))
    expected = ranked if len(ranked) <= num else [ranked[int((p + 0.5) * len(ranked) / num)] for p in range(num)]
    assert found.tolist() == expected
    assert len(set(found.tolist())) == len(found)


@given(seed=st.integers(0, 20), num=st.integers(1, 9))
def test_the_order_of_latents_does_not_matter(seed, num):
    rng = np.random.default_rng(seed)
    fired, order = rng.permutation(500)[:40] + 1, rng.permutation(40)
    again = spread_by_density(fired[order], num=num, least=1)
    assert order[again].tolist() == spread_by_density(fired, num=num, least=1).tolist()


def test_dead_latents_are_never_shown():
    assert spread_by_density(np.zeros(9, np.int64), num=3, least=0).tolist() == []
    assert spread_by_density(np.array([0, 4, 5]), num=3, least=5).tolist() == [2]


ROWS, LATENTS = 400, 3


def drawn_rows(parts, dense, rows, seed=0, num=40):
    """Rows drawn for every latent, each row a sequence of its own."""
    states = []
    for part in parts:
        codes = by_chance(Codes.of(dense[part]), rows[part], seed=seed)
        states.append(TopExamples.of(codes, rows[part], rows[part], num_latents=LATENTS, num=num))
    return merge_tree(states).row


def material():
    rng = np.random.default_rng(0)
    dense = np.exp(rng.standard_normal((ROWS, LATENTS))).astype(np.float32)
    dense[:, 1] *= rng.random(ROWS) < 0.5
    dense[:, 2] = np.arange(ROWS) / ROWS
    return dense, np.arange(ROWS, dtype=np.int64) * 3


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=4), backwards=st.booleans())
def test_rows_by_chance_are_the_same_for_any_split_of_the_blocks(cuts, backwards):
    dense, rows = material()
    parts = [np.arange(a, b) for a, b in pairwise(sorted({0, ROWS, *cuts}))]
    found = drawn_rows(parts[::-1] if backwards else parts, dense, rows)
    np.testing.assert_array_equal(found, drawn_rows([np.arange(ROWS)], dense, rows))


def test_rows_by_chance_are_rows_that_fire_whatever_their_codes():
    """Null: the mean rank of the codes drawn is that of all codes, within four standard errors."""
    dense, rows = material()
    found = drawn_rows([np.arange(ROWS)], dense, rows)
    for latent in range(LATENTS):
        assert (dense[found[latent] // 3, latent] > 0).all()
        fires = np.flatnonzero(dense[:, latent] > 0)
        ranks = np.argsort(np.argsort(dense[fires, latent])) / len(fires)
        own = ranks[np.isin(fires, found[latent] // 3)]
        assert len(own) == 40
        assert abs(own.mean() - 0.5) < 4 / np.sqrt(12 * 40)
    assert not np.array_equal(found, drawn_rows([np.arange(ROWS)], dense, rows, seed=1))


def test_values_by_chance_are_positive_and_nearly_all_different():
    codes = Codes.of(np.ones((5000, 1), np.float32))
    value = by_chance(codes, np.arange(5000), seed=0).value[:, 0]
    assert value.dtype == np.float32
    assert value.min() > 0
    assert value.max() <= 1
    assert len(np.unique(value)) > 4990
    assert np.histogram(value, 10, (0, 1))[0] == pytest.approx(500, abs=100)


@dataclass(frozen=True)
class Squares:
    """A reader whose latent m of row x is x @ weights[:, m], squared."""

    weights: torch.Tensor

    def codes(self, rows):
        return (rows @ self.weights) ** 2

    def decode(self, codes, rows=None):
        return codes @ self.weights.T


@pytest.mark.parametrize("num_rows", [0, 1, 10])
def test_codes_of_some_latents_are_those_of_all(monkeypatch, num_rows):
    monkeypatch.setattr("lrh_ray.analyses.sae.reader.TILE_ROWS", 3)
    rng = np.random.default_rng(0)
    reader = Squares(torch.from_numpy(rng.standard_normal((4, 6)).astype(np.float32)))
    rows, latents = rng.standard_normal((num_rows, 4)).astype(np.float32), np.array([5, 0, 2])
    found = chosen_codes(reader, rows, latents)
    np.testing.assert_allclose(found, reader.codes(torch.from_numpy(rows)).numpy()[:, latents], rtol=1e-6)
    assert chosen_codes(reader, rows, latents[:0]).shape == (num_rows, 0)
