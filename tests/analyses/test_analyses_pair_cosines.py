"""Cosines of differences of word pairs: means taken one by one, planted directions, and what noise gives."""

import numpy as np
import pytest

from lrh_ray.analyses.pair_cosines import alignment, same_word_cosines, within_cosines
from lrh_ray.analyses.pair_metrics import gram_of
from lrh_ray.analyses.pair_test import PairTable


def spaces(strength=1.0, seed=0):
    """E and U differences of pairs with a common direction for each concept, in both spaces the same."""
    rng = np.random.default_rng([seed, 12])
    table = PairTable.of([f"c{k}" for k in range(3) for _ in range(20)], [(f"{i}a", f"{i}b") for i in range(60)])
    common = strength * np.repeat(rng.standard_normal((3, 80)), 20, axis=0)
    e, u = (common + rng.standard_normal((60, 80)) for _ in range(2))
    return e, u, table


def test_mean_cosines_within_a_concept_are_those_of_its_pairs():
    rng = np.random.default_rng(8)
    table = PairTable.of(["c"] * 6 + ["d"] * 5, [(f"{i}a", f"{i // 2}b" if i < 6 else f"{i}b") for i in range(11)])
    rows = rng.standard_normal((22, 7))
    found = within_cosines(gram_of(rows), table, draws=30, seed=0).cosine
    differences = rows[11:] - rows[:11]
    unit = differences / np.linalg.norm(differences, axis=1, keepdims=True)
    expected = [unit[i] @ unit[j] for i in range(6, 11) for j in range(6, i)]
    assert found[1] == pytest.approx(np.mean(expected), abs=1e-9)
    assert np.isnan(found[0])  # three groups


def test_parallel_differences_are_found_and_random_ones_are_not():
    e, _, table = spaces()
    words = np.random.default_rng(9).standard_normal(e.shape)
    found = within_cosines(gram_of(np.concatenate([words, words + e])), table, draws=99, seed=0)
    assert found.cosine.min() > 0.4
    assert found.low.min() > 0.3
    assert found.p_values.max() == 0.01
    level = 0
    for seed in range(30):
        noise = np.random.default_rng([seed, 13]).standard_normal((120, 40))
        level += bool((within_cosines(gram_of(noise), table, draws=60, seed=seed).p_values <= 0.05).any())
    assert level <= 5  # 99.8 % of binomial(30, .05)


def test_shuffled_partners_tell_two_kinds_of_words_from_a_relation():
    """Pairs around one common word each lose their cosine; two kinds of unrelated words keep it."""
    rng = np.random.default_rng(10)
    table = PairTable.of(["c"] * 30, [(f"{i}a", f"{i}b") for i in range(30)])
    shift = 2 * rng.standard_normal(60) / np.sqrt(60) * 3
    stems, others = 3 * rng.standard_normal((30, 60)), 3 * rng.standard_normal((30, 60))
    related = within_cosines(gram_of(np.concatenate([stems, stems + shift])), table, draws=30, seed=0)
    kinds = within_cosines(gram_of(np.concatenate([stems, others + shift])), table, draws=30, seed=0)
    assert related.cosine[0] > 0.99
    assert related.shuffled[0] < 0.2
    assert kinds.cosine[0] == pytest.approx(kinds.shuffled[0], abs=0.02)


def test_representation_and_unembedding_agree_for_the_same_concept_only():
    e, u, table = spaces()
    products = (e @ e.T, e @ u.T, u @ u.T, table)
    found = alignment(*products, repeats=10, draws=99, seed=0)
    off = ~np.eye(3, dtype=bool)
    assert found.diagonal.min() > 0.7
    assert found.low.min() > 0.5
    assert np.abs(found.cosines[off]).max() < 0.4
    assert found.p_values.max() == 0.01
    whole = same_word_cosines(*products)
    means = [side.reshape(3, 20, -1).mean(axis=1) for side in (e, u)]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in means]
    np.testing.assert_allclose(whole, np.abs(unit[0] @ unit[1].T), atol=1e-9)


def test_rows_that_hold_their_own_words_agree_with_the_unembedding_from_the_same_words_only():
    """What tied weights do: E is U and noise, without any concept."""
    _, u, table = spaces(strength=0.0)
    e = u + np.random.default_rng(11).standard_normal(u.shape)
    products = (e @ e.T, e @ u.T, u @ u.T, table)
    assert np.diagonal(same_word_cosines(*products)).min() > 0.5
    found = alignment(*products, repeats=20, draws=99, seed=0)
    assert np.abs(found.diagonal).max() < 0.1
    assert found.p_values.min() > 0.05
