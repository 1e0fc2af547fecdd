"""Matrix entropy, effective rank, coding length and gains of tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.analyses.geometry import (
    UnitGrams,
    UnitSpectrum,
    diff_erank,
    isotropic_spectrum,
    select_context,
    token_gains,
)
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import NotEnoughData


def spectrum_of(rows, mean=None):
    mean = rows.mean(axis=0) if mean is None else mean
    return UnitGrams.of(rows, mean, groups=np.zeros(len(rows), np.int64)).spectrum()


def test_rows_that_fill_all_directions_have_log_d_and_rows_on_a_line_have_0():
    axes = np.concatenate([np.eye(8), -np.eye(8)])
    even = spectrum_of(axes)
    assert even.entropy == pytest.approx(np.log(8), abs=1e-12)
    assert even.effective_rank == pytest.approx(8)
    assert even.participation_ratio == pytest.approx(8)
    assert even.normalised_entropy == pytest.approx(1)
    line = spectrum_of(np.outer(np.linspace(-1, 1, 20), np.ones(8)))
    assert line.entropy == pytest.approx(0, abs=1e-9)
    assert diff_erank(trained=line, untrained=even) == pytest.approx(7, abs=1e-6)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_rotation_scale_and_shift_change_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((60, 7)) * rng.exponential(size=7)
    rotation = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    moved = scale * rows @ rotation + 3.0
    np.testing.assert_allclose(spectrum_of(moved).values, spectrum_of(rows).values, rtol=1e-7, atol=1e-9)


def test_the_definition_of_the_source_in_plain_numpy():
    rows = np.random.default_rng(0).standard_normal((200, 12)) @ np.diag(np.arange(1.0, 13))
    unit = rows - rows.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    k = unit.T @ unit / len(unit)
    values = np.linalg.eigvalsh(k / np.trace(k))
    ours = spectrum_of(rows)
    assert ours.entropy == pytest.approx(-(values * np.log(values)).sum(), rel=1e-12)
    rate = 0.5 * np.linalg.slogdet(np.eye(12) + 12 / 0.25 * k)[1]
    assert ours.coding_length(0.5) == pytest.approx(rate, rel=1e-10)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_blocks_and_groups_may_be_cut_anywhere(seed, sizes):
    rng = np.random.default_rng(seed)
    rows, groups = rng.standard_normal((sum(sizes), 5)), rng.integers(0, 3, sum(sizes))
    mean = rows.mean(axis=0)
    ends = np.cumsum(sizes)
    states = [
        UnitGrams.of(rows[end - size : end], mean, groups=groups[end - size : end], num_groups=3)
        for end, size in zip(ends, sizes, strict=True)
    ]
    whole = UnitGrams.of(rows, mean, groups=groups, num_groups=3)
    np.testing.assert_allclose(merge_tree(states).grams, whole.grams, rtol=1e-10, atol=1e-12)
    if (groups != 1).sum() > 1:
        left_out = merge_tree(states).spectrum(np.array([1.0, 0.0, 1.0]))
        np.testing.assert_allclose(left_out.values, spectrum_of(rows[groups != 1], mean).values, atol=1e-10)


def test_rows_without_a_direction_are_left_out_and_counted():
    rows = np.concatenate([np.zeros((3, 4)), np.eye(4), -np.eye(4)])
    state = UnitGrams.of(rows, np.zeros(4), groups=np.zeros(11, np.int64))
    assert state.without_direction == 3
    assert state.spectrum().rows == 8
    with pytest.raises(NotEnoughData, match="0 rows differ"):
        UnitGrams.of(np.ones((5, 2)), np.ones(2), groups=np.zeros(5, np.int64)).spectrum()
    with pytest.raises(NotEnoughData, match="not finite"):
        spectrum_of(np.array([[1.0, np.inf], [0.0, 1.0], [2.0, 1.0]]), np.zeros(2))


def test_gains_add_up_and_are_ridge_regressions():
    rng = np.random.default_rng(0)
    rows, penalty = rng.standard_normal((9, 6)), 0.3
    gains = token_gains(rows, penalty)
    whole = 0.5 * np.linalg.slogdet(np.eye(6) + rows.T @ rows / penalty)[1]
    assert gains.information.sum() == pytest.approx(whole, rel=1e-12)
    for number in range(9):
        before, row = rows[:number], rows[number]
        inverse = np.linalg.inv(before.T @ before + penalty * np.eye(6))
        assert gains.information[number] == pytest.approx(0.5 * np.log1p(row @ inverse @ row), rel=1e-10)
        weights = np.linalg.solve(before @ before.T + penalty * np.eye(number), before @ row)
        residual = ((row - before.T @ weights) ** 2).sum() + penalty * (weights**2).sum()
        assert gains.unexplained[number] == pytest.approx(residual / (row @ row), rel=1e-10)


def test_the_gain_given_another_context_is_that_of_the_row_after_it():
    rng = np.random.default_rng(4)
    rows, context = rng.standard_normal((12, 5)), rng.standard_normal((14, 5))
    found = token_gains(rows, 0.3, context)
    for t in range(12):
        together = token_gains(np.vstack([context[:t], rows[t]]), 0.3)
        assert found.information[t] == pytest.approx(together.information[-1], abs=1e-12)
        assert found.unexplained[t] == pytest.approx(together.unexplained[-1], abs=1e-12)
    same, own = token_gains(rows, 0.3, rows), token_gains(rows, 0.3)
    np.testing.assert_allclose(same.information, own.information, atol=1e-12)


@pytest.mark.parametrize(("num_rows", "width"), [(4000, 24), (60, 24), (10, 24)])
def test_isotropic_spectra_are_those_of_gaussian_rows(num_rows, width):
    drawn = isotropic_spectrum(num_rows, width, seed=0)
    rows = np.random.default_rng(5).standard_normal((num_rows, width))
    values = np.linalg.eigvalsh(rows.T @ rows)
    assert len(drawn.values) == width
    assert drawn.values.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(drawn.values, values / values.sum(), atol=0.35 * values.max() / values.sum())
    whole = UnitSpectrum(values=np.clip(values, 0, None) / values.sum(), rows=num_rows)
    assert drawn.effective_rank == pytest.approx(whole.effective_rank, rel=0.1)


def test_a_repeated_token_brings_little():
    rng = np.random.default_rng(0)
    row = rng.standard_normal(50)
    gains = token_gains(np.stack([row, rng.standard_normal(50), row]), 0.01)
    assert gains.unexplained[2] < 0.001
    assert gains.information[2] < 0.2 * gains.information[1]


def test_the_lasso_names_the_tokens_that_make_up_a_row():
    rng = np.random.default_rng(0)
    context = rng.standard_normal((30, 80))
    target = 2.0 * context[4] - 1.0 * context[17] + 0.05 * rng.standard_normal(80)
    selected = select_context(context, target, 3)
    assert selected.order[:2].tolist() == [4, 17]
    assert selected.unexplained[0] > 0.1 > 0.01 > selected.unexplained[1]
