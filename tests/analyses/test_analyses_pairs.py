"""The pair test: its solver against scikit-learn, and what it says of noise, planted concepts and shared words."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.kernel_logistic import fit_kernel_logistic
from lrh_ray.analyses.multiplicity import benjamini_hochberg, equivalent, max_t_p_values
from lrh_ray.analyses.pair_metrics import covariance_of, gram_of, matched_noise, whitened_gram
from lrh_ray.analyses.pair_test import PairTable, replica, split_half_test, word_groups
from lrh_ray.errors import NotEnoughData

WIDTH = 400
PUBLISHED = 1e-4


def table_of(*sizes: int) -> PairTable:
    """Concepts of these numbers of pairs, without a word in common."""
    concepts = [f"c{index}" for index, size in enumerate(sizes) for _ in range(size)]
    return PairTable.of(concepts, [(f"{number}a", f"{number}b") for number in range(len(concepts))])


def noise(table: PairTable, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2 * table.num_pairs, WIDTH))


def planted(table: PairTable, strength: float, seed: int = 0) -> np.ndarray:
    """Noise, and in the first words of every concept a direction of its own."""
    rows, rng = noise(table, seed), np.random.default_rng(seed + 1)
    for concept in range(len(table.concepts)):
        direction = rng.standard_normal(WIDTH)
        rows[table.pairs_of(concept)] += strength * direction / np.linalg.norm(direction)
    return rows


@pytest.mark.parametrize("inverse_penalty", [1e-4, 1e-2, 1.0, 100.0])
def test_a_batch_of_fits_is_scikit_learns(inverse_penalty):
    rng = np.random.default_rng(0)
    rows, truth = rng.standard_normal((40, 60)), rng.standard_normal(60)
    labels = (rows @ truth + 4 * rng.standard_normal((5, 40)) > 0).astype(float)
    weights = rng.integers(0, 3, (5, 40)).astype(float)
    fit = fit_kernel_logistic(rows @ rows.T, labels, weights, inverse_penalty=inverse_penalty, tolerance=1e-10)
    for number in range(5):
        peer = LogisticRegression(C=inverse_penalty, solver="newton-cholesky", tol=1e-12, max_iter=500)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # its last step is below what float64 can show
            peer.fit(rows, labels[number], sample_weight=weights[number])
        ours = fit.coefficients[number] @ rows
        np.testing.assert_allclose(ours, peer.coef_[0], atol=1e-8 * np.abs(peer.coef_).max())
        np.testing.assert_allclose(fit.intercepts[number], peer.intercept_[0], atol=1e-7)
    assert fit.certificate.max() <= 1e-9


def test_rows_of_one_class_have_no_probe():
    with pytest.raises(NotEnoughData, match="one class"):
        fit_kernel_logistic(np.eye(4), np.ones((1, 4)), np.ones((1, 4)), inverse_penalty=1.0)


def test_a_small_c_makes_the_weights_the_mean_difference():
    """So the published A_s W_s compares a vector with itself."""
    table = table_of(30)
    cosine = replica(gram_of(noise(table)), table, inverse_penalty=1e-6)[0, 0]
    assert cosine > 0.999999


def test_noise_passes_the_published_test_and_fails_the_honest_one():
    """The test that shows why held-out words are needed."""
    table = table_of(50, 50, 100)
    gram = gram_of(noise(table))
    assert np.diagonal(replica(gram, table, inverse_penalty=PUBLISHED)).min() > 0.95
    honest = split_half_test(gram, table, inverse_penalty=PUBLISHED, repeats=20, draws=100, seed=0)
    assert np.abs(honest.diagonal).max() < 0.05
    assert honest.p_values.min() > 0.05
    assert (honest.low < 0).all()
    assert (honest.high > 0).all()


@pytest.mark.parametrize("make", [gram_of, whitened_gram])
def test_a_planted_concept_is_found_with_its_own_words_only(make):
    table = table_of(60, 60)
    honest = split_half_test(make(planted(table, 6.0)), table, inverse_penalty=1e-2, repeats=10, draws=100, seed=0)
    assert honest.p_values.max() <= 0.05
    assert honest.low.min() > 0.2
    assert (honest.low < honest.diagonal).all()
    assert (honest.diagonal < honest.high).all()
    off = honest.cosines[~np.eye(2, dtype=bool)]
    assert np.abs(off).max() < 0.15


def test_the_null_keeps_its_level():
    """Over forty noisy worlds of three concepts, about one in twenty has a p value of .05 or less."""
    table = table_of(12, 16, 20)
    rejected = 0
    for seed in range(40):
        test = split_half_test(
            gram_of(noise(table, 1000 + seed)), table, inverse_penalty=PUBLISHED, repeats=4, draws=100, seed=seed
        )
        rejected += bool((test.p_values <= 0.05).any())
    assert rejected <= 6  # 99.7 % of binomial(40, .05)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_pairs_and_a_rotation_change_nothing(seed):
    table, rng = table_of(8, 9), np.random.default_rng(seed)
    rows = planted(table, 3.0, seed)
    order = rng.permutation(table.num_pairs)
    shuffled = PairTable(concepts=table.concepts, concept=table.concept[order], group=table.group[order])
    moved = rows[np.concatenate([order, table.num_pairs + order])]
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    expected = replica(gram_of(rows), table, inverse_penalty=0.1)
    np.testing.assert_allclose(replica(gram_of(moved), shuffled, inverse_penalty=0.1), expected, atol=1e-8)
    np.testing.assert_allclose(replica(gram_of(rows @ rotation), table, inverse_penalty=0.1), expected, atol=1e-8)


def test_a_seed_gives_the_same_answer_twice_and_another_seed_another():
    table = table_of(10, 10)
    gram = gram_of(noise(table))
    first, again, other = (
        split_half_test(gram, table, inverse_penalty=0.01, repeats=3, draws=50, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.cosines, again.cosines)
    np.testing.assert_array_equal(first.null, again.null)
    assert not np.array_equal(first.cosines, other.cosines)


def test_pairs_that_share_a_word_are_one_group_through_any_chain():
    words = [("a", "b"), ("b", "c"), ("x", "y"), ("c", "d"), ("z", "x")]
    groups = word_groups(words)
    assert len(set(groups[[0, 1, 3]].tolist())) == 1
    assert len(set(groups[[2, 4]].tolist())) == 1
    assert groups[0] != groups[2]


def test_shared_words_cannot_leak_between_halves():
    """Every word stands in two pairs; rows of the same word are equal, and would agree across halves."""
    words = [(f"{number}a", f"{number}{side}") for number in range(30) for side in "bc"]
    table = PairTable.of(["c"] * 60, words)
    rng, own = np.random.default_rng(0), {}
    rows = np.stack(
        [own.setdefault(word, rng.standard_normal(WIDTH)) for side in (0, 1) for word in np.array(words)[:, side]]
    )
    honest = split_half_test(gram_of(rows), table, inverse_penalty=PUBLISHED, repeats=20, draws=100, seed=0)
    assert abs(honest.diagonal[0]) < 0.15  # thirty groups: three standard deviations
    separate = PairTable(concepts=table.concepts, concept=table.concept, group=np.arange(60))
    leaking = split_half_test(gram_of(rows), separate, inverse_penalty=PUBLISHED, repeats=20, draws=100, seed=0)
    assert leaking.diagonal[0] > 0.25


def test_a_concept_of_few_groups_is_not_judged():
    table = table_of(3, 20)
    honest = split_half_test(gram_of(noise(table)), table, inverse_penalty=0.01, repeats=3, draws=50, seed=0)
    assert np.isnan(honest.diagonal[0])
    assert np.isnan(honest.p_values[0])
    assert np.isfinite(honest.diagonal[1])


def test_words_with_the_same_row_have_no_direction():
    """At the embedding, words that end in the same token; a cosine with nothing is 0, and p is 1."""
    table = table_of(8, 8)
    rows = noise(table)
    rows[table.num_pairs : table.num_pairs + 8] = rows[:8]
    gram = gram_of(rows)
    assert replica(gram, table, inverse_penalty=0.01)[0, 0] == 0
    honest = split_half_test(gram, table, inverse_penalty=0.01, repeats=3, draws=50, seed=0)
    assert honest.diagonal[0] == honest.low[0] == honest.high[0] == 0
    assert honest.p_values[0] == 1


def test_what_cannot_be_tested_is_named():
    with pytest.raises(NotEnoughData, match="no word pairs"):
        PairTable.of([], [])
    few = table_of(2)
    with pytest.raises(NotEnoughData, match="4 groups"):
        split_half_test(gram_of(noise(few)), few, inverse_penalty=1.0, repeats=2, draws=50, seed=0)
    rows = noise(few)
    rows[1, 3] = np.nan
    with pytest.raises(NotEnoughData, match="1 rows are not finite, the first is number 1"):
        gram_of(rows)


def test_whitening_undoes_scales_and_the_causal_metric_is_a_change_of_coordinates():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 6)) @ (np.eye(6) + 0.3 * rng.standard_normal((6, 6)))
    whitened = whitened_gram(rows)
    kept = np.linalg.eigvalsh(whitened)[-6:] / len(rows)
    np.testing.assert_allclose(kept, 1.0, atol=0.1)  # shrinkage takes a little of the smallest
    metric = covariance_of(rng.standard_normal((50, 6)))
    root = np.linalg.cholesky(metric)
    np.testing.assert_allclose(gram_of(rows[:20], metric), gram_of(rows[:20] @ root), rtol=1e-9, atol=1e-6)


def test_matched_noise_has_the_mean_and_covariance_and_nothing_else():
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(3000, 3)) @ rng.standard_normal((3, 3))
    other = matched_noise(rows, rng)
    np.testing.assert_allclose(np.cov(other.T), np.cov(rows.T), rtol=0.2, atol=0.2)
    np.testing.assert_allclose(other.mean(axis=0), rows.mean(axis=0), atol=0.15)


def test_adjusted_p_values_against_their_definitions():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((999, 4)) @ np.diag([1, 1, 10, 1])
    observed = np.array([0.0, 6.0, 6.0, 2.0])
    p_values = max_t_p_values(observed, draws)
    assert p_values[1] == 1 / 1000
    assert p_values[2] > 0.5  # 6 is little where the spread is 10
    assert p_values[3] > 1 - (1 - 0.0228) ** 4 - 0.05
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.01, 0.02, 0.5, 0.04])), [0.04, 0.04, 0.5, 0.16 / 3])
    with pytest.raises(NotEnoughData, match="20"):
        max_t_p_values(observed, draws[:19])


def test_equivalence_needs_the_whole_interval():
    low, high = np.array([0.9, 0.7, 0.9]), np.array([0.95, 0.95, 1.2])
    assert equivalent(low, high, target=0.92, margin=0.05).tolist() == [True, False, False]
