"""Lengths are those of a real code, entropy where there are enough rows, and never below what Gaussian rows allow."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.sparse import csr_array

from lrh_ray.analyses.sae.description_length import (
    BACK_OFF,
    CodeBook,
    CodeCounts,
    DescriptionLength,
    QuantisedReader,
    gaussian_bits,
    over_gaussian,
    steps_of,
    symbols,
)
from lrh_ray.analyses.sae.reader import TopKReader
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import NotEnoughData


def drawn(num, seed=0, latents=6):
    """Symbols of a few latents, each firing at its own rate."""
    rng = np.random.default_rng(seed)
    rates = np.linspace(0, 0.5, latents)
    return csr_array(rng.integers(1, 5, (num, latents)) * (rng.random((num, latents)) < rates))


def test_codes_are_whole_steps_and_signs_have_symbols_of_their_own():
    codes = csr_array(np.array([[0.0, 0.26, -0.24], [0.04, 1.0, 0.0]], dtype=np.float32))
    found = symbols(codes, np.array([0.1, 0.1, 0.08], np.float32))
    np.testing.assert_array_equal(found.toarray(), [[0, 5, 6], [0, 19, 0]])
    np.testing.assert_array_equal(codes.toarray()[1, 0], np.float32(0.04))  # and the codes are as they were


def test_any_split_counts_the_same():
    every = drawn(300)
    whole = CodeCounts.of(every)
    for cuts in ((10,), (0, 150), tuple(range(20, 300, 20))):
        ends = [0, *cuts, 300]
        again = merge_tree(CodeCounts.of(every[a:b]) for a, b in pairwise(ends))
        np.testing.assert_array_equal(again.keys, whole.keys)
        np.testing.assert_array_equal(again.counts, whole.counts)
        assert (again.rows, again.latents) == (300, 6)


def test_a_row_is_sent_symbol_by_symbol():
    """The long way round, and the chances of all symbols of a latent add up to 1."""
    training, row = drawn(200), np.array([[0, 3, 0, 2, 9, 1]])
    book, dense = CodeBook.of(CodeCounts.of(training)), training.toarray()
    pooled = dense[dense > 0]

    def chance(latent, symbol):
        own = dense[:, latent]
        shared = ((pooled == symbol).sum() + 1 / (symbol * (symbol + 1))) / (len(pooled) + 1)
        return ((own == symbol).sum() + BACK_OFF * shared) / ((own > 0).sum() + BACK_OFF)

    wanted = 0.0
    for latent, symbol in enumerate(row[0].tolist()):
        fires = ((dense[:, latent] > 0).sum() + 0.5) / 201
        wanted -= np.log2(fires * chance(latent, symbol)) if symbol else np.log2(1 - fires)
    assert book.bits(csr_array(row))[0] == pytest.approx(wanted, rel=1e-12)
    for latent in range(6):
        total = sum(chance(latent, symbol) for symbol in range(1, 2000))
        assert total == pytest.approx(1, abs=1e-3)


def test_with_many_rows_lengths_are_entropies():
    book, fresh = CodeBook.of(CodeCounts.of(drawn(40_000, seed=1))), drawn(20_000, seed=2)
    rates = np.linspace(0, 0.5, 6)[1:]
    entropy = (-rates * np.log2(rates) - (1 - rates) * np.log2(1 - rates) + 2 * rates).sum()
    assert book.bits(fresh).mean() == pytest.approx(entropy, rel=0.01)


def test_a_code_for_other_rows_is_longer():
    """Lengths are no entropies of the rows sent: what was not expected costs."""
    own, fresh = drawn(5000, seed=1), drawn(5000, seed=2)
    shuffled = csr_array(fresh.toarray()[:, ::-1])
    book = CodeBook.of(CodeCounts.of(own))
    assert book.bits(shuffled).mean() > 1.3 * book.bits(fresh).mean()
    nothing = CodeBook.of(
        CodeCounts.of(csr_array((50, 6), dtype=np.int64))
    )  # latents that never fired can still be sent
    assert np.isfinite(nothing.bits(fresh)).all()
    with pytest.raises(NotEnoughData, match="no training rows"):
        CodeBook.of(CodeCounts.of(csr_array((0, 6), dtype=np.int64)))


@pytest.mark.parametrize("fvu", [0.9, 0.25, 0.01])
def test_gaussian_rows_take_the_bits_of_reverse_water_filling(fvu):
    assert gaussian_bits(np.full(10, 3.0), fvu) == pytest.approx(10 * np.log2(1 / fvu) / 2)
    values = np.array([9.0, 4.0, 1.0, 0.1, 0.0])
    theta = brentq(lambda level: np.minimum(values, level).sum() - fvu * values.sum(), 1e-9, 9.0)
    wanted = sum(np.log2(value / theta) / 2 for value in values if value > theta)
    assert gaussian_bits(values, fvu) == pytest.approx(wanted, rel=1e-6)


def test_nothing_left_takes_no_bits_and_nothing_lost_takes_any():
    assert gaussian_bits(np.array([1.0, 2.0]), 1.0) == 0
    assert gaussian_bits(np.array([1.0, 2.0]), 1.5) == 0
    assert gaussian_bits(np.array([1.0, 2.0]), 0.0) == np.inf
    assert over_gaussian(5.0, 1.2, np.array([1.0, 2.0])) == np.inf  # bits that explain nothing


@dataclass(frozen=True)
class Coordinates:
    """Rows as they are, either way round: an autoencoder of 2 D latents that explains everything."""

    def codes(self, rows):
        return torch.cat([rows.relu(), (-rows).relu()], dim=1)

    def decode(self, codes, rows=None):
        half = codes.shape[1] // 2
        return codes[:, :half] - codes[:, half:]


def length_of(reader, decoder, rows, step, groups=10):
    """Trained on one half of the rows, sent on the other."""
    quantised = QuantisedReader(reader=reader, steps=torch.from_numpy(steps_of(decoder, step)))
    half = len(rows) // 2
    book = CodeBook.of(CodeCounts.of(symbols(sparse_codes(reader, rows[:half]), quantised.steps.numpy())))
    held_out, group = rows[half:], np.arange(len(rows) - half) % groups
    centre = rows[:half].mean(axis=0).astype(np.float64)

    def of(part):
        return DescriptionLength.of(held_out[part], quantised, book, centre, group[part], num_groups=groups)

    return of(slice(None)), merge_tree(of(slice(first, first + 900)) for first in range(0, len(held_out), 900))


@pytest.mark.parametrize("step", [0.1, 0.5])
def test_no_code_beats_the_bound_on_gaussian_rows(step):
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((8000, 5)) * [3, 2, 1, 1, 0.5]).astype(np.float32)
    decoder = np.concatenate([np.eye(5), -np.eye(5)])
    found, again = length_of(Coordinates(), decoder, rows, step)
    excess = found.against(np.linalg.eigvalsh(np.cov(rows[4000:].T)))
    assert 1.0 < excess.low < excess.value < 1.6
    assert found.fvu().value == pytest.approx(step**2 / 12 * 5 / 15.25, rel=0.1)  # of uniform errors
    np.testing.assert_allclose(found.bits().value, again.bits().value, rtol=1e-12)
    np.testing.assert_allclose(found.fvu().low, again.fvu().low, rtol=1e-6)


def test_sparse_rows_take_fewer_bits_than_their_covariance_says():
    """One of 200 directions a row, in 20 dimensions: its number and its size are all there is to send."""
    rng = np.random.default_rng(1)
    directions = rng.standard_normal((200, 20)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows = directions[rng.integers(200, size=16_000)] * (5 + rng.random((16_000, 1))).astype(np.float32)
    own = {name: torch.from_numpy(directions) for name in ("encoder", "decoder")}
    biases = {"encoder_bias": torch.zeros(200), "decoder_bias": torch.zeros(20)}
    reader = TopKReader(parameters=own | biases, k=1)
    found, _ = length_of(reader, directions, rows, 0.1)
    excess = found.against(np.linalg.eigvalsh(np.cov(rows[8000:].T)))
    assert found.left.l0().value == pytest.approx(1)
    assert found.bits().value < 16  # about log2 200 for the direction, log2 10 for the size, and what silence costs
    assert excess.high < 0.3
