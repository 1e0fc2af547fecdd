"""Causal directions: what an affine change of the model must not change, planted worlds, and what chance gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lrh_ray.analyses.causal_directions import (
    InnerProduct,
    TokenPairs,
    concept_directions,
    differences,
    vocabulary_correlations,
    vocabulary_scores,
)
from lrh_ray.analyses.context_tests import intervention, measurement
from lrh_ray.analyses.direction_tests import (
    difference_gram,
    direction_map,
    leave_one_out,
    left_out_projections,
    random_projections,
)
from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.pair_metrics import covariance_of
from lrh_ray.analyses.pair_test import PairTable
from lrh_ray.errors import ConfigError, NotEnoughData

WIDTH, NUM_CONCEPTS, PAIRS = 24, 4, 16


def planted(seed=0, num_tokens=4096, noise=0.1):
    """Tokens with independent binary concepts along directions of an unknown basis, which is far from orthogonal.

    Returns the unembedding, and pairs of tokens that differ in one concept, up to noise.
    """
    rng = np.random.default_rng([seed, 7])
    values = rng.choice([-1.0, 1.0], size=(num_tokens, WIDTH))
    basis = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] * np.geomspace(1, 10, WIDTH)
    basis += (
        1.5 * rng.standard_normal((WIDTH, 1)) * rng.standard_normal(WIDTH)
    )  # a common part: columns are not orthogonal
    for concept in range(NUM_CONCEPTS):
        for pair in range(PAIRS):
            first = 2 * (concept * PAIRS + pair)
            values[first + 1] = values[first]
            values[first : first + 2, concept] = -1.0, 1.0
    gamma = (values + noise * rng.standard_normal(values.shape)) @ basis.T + 3.0
    names = [f"c{k}" for k in range(NUM_CONCEPTS) for _ in range(PAIRS)]
    return gamma, TokenPairs.of(names, [(2 * i, 2 * i + 1) for i in range(len(names))])


def unplanted(seed=0, num_tokens=4096):
    """Pairs of random tokens of a Gaussian unembedding."""
    rng = np.random.default_rng([seed, 8])
    gamma = rng.standard_normal((num_tokens, WIDTH)) @ rng.standard_normal((WIDTH, WIDTH))
    tokens = rng.permutation(num_tokens)[: 2 * NUM_CONCEPTS * PAIRS].reshape(-1, 2).tolist()
    names = [f"c{k}" for k in range(NUM_CONCEPTS) for _ in range(PAIRS)]
    return gamma, TokenPairs.of(names, [tuple(pair) for pair in tokens])


def reparametrised(gamma, rows, seed):
    """The same model in other coordinates: gamma -> A^-T gamma + b, lambda -> A lambda."""
    rng = np.random.default_rng([seed, 9])
    left, right = (np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] for _ in range(2))
    a = left * np.geomspace(0.3, 3, WIDTH) @ right  # condition 10: the covariance loses no more than two more digits
    return gamma @ np.linalg.inv(a) + rng.standard_normal(WIDTH), rows @ a.T


@given(st.integers(0, 1000))
def test_an_affine_change_of_the_model_changes_no_causal_number(seed):
    """The paper's claim: the causal inner product is a property of the model, not of its coordinates."""
    gamma, pairs = planted()
    rows = np.random.default_rng([seed, 10]).standard_normal((20, WIDTH))
    other, moved = reparametrised(gamma, rows, seed)
    inner, there = InnerProduct.causal(gamma), InnerProduct.causal(other)
    gram = difference_gram(gamma, pairs, inner)
    np.testing.assert_allclose(difference_gram(other, pairs, there), gram, atol=1e-8 * np.abs(gram).max())
    one, two = concept_directions(gamma, pairs, inner), concept_directions(other, pairs, there)
    np.testing.assert_allclose(moved @ two.words.T, rows @ one.words.T, atol=1e-8)
    scores, elsewhere = vocabulary_scores(gamma, one.contexts), vocabulary_scores(other, two.contexts)
    np.testing.assert_allclose(elsewhere - elsewhere.mean(axis=0), scores - scores.mean(axis=0), atol=1e-8)
    plain, changed = (direction_cosines(g, pairs, InnerProduct.euclidean(WIDTH)) for g in (gamma, other))
    assert np.abs(plain - changed).max() > 0.01  # the Euclidean one is a property of the coordinates


def direction_cosines(gamma, pairs, inner):
    coordinates = inner.coordinates(concept_directions(gamma, pairs, inner).words)
    return coordinates @ coordinates.T


def test_coordinates_and_their_duals_keep_logits_and_whiten_the_vocabulary():
    gamma, _ = planted()
    inner = InnerProduct.causal(gamma)
    words = inner.coordinates(gamma)
    np.testing.assert_allclose(covariance_of(words), np.eye(WIDTH), atol=1e-9)
    rows = np.random.default_rng(1).standard_normal((5, WIDTH))
    np.testing.assert_allclose(inner.dual_coordinates(rows) @ words.T, rows @ gamma.T, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(inner.dual(gamma[:3]) @ gamma[:3].T, words[:3] @ words[:3].T, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_covariance_over_the_vocabulary_does_not_depend_on_tiles_or_order(dtype):
    gamma = np.random.default_rng(2).standard_normal((9001, 5)).astype(dtype) + dtype(100.0)
    expected = np.cov(gamma.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(covariance_of(gamma), expected, atol=1e-10)
    np.testing.assert_allclose(covariance_of(gamma[::-1]), expected, atol=1e-10)


def test_a_direction_without_rank_is_inverted_where_tokens_differ():
    gamma, pairs = planted()
    flat = np.concatenate([gamma, np.full((len(gamma), 1), 2.0)], axis=1)
    np.testing.assert_allclose(
        difference_gram(flat, pairs, InnerProduct.causal(flat)),
        difference_gram(gamma, pairs, InnerProduct.causal(gamma)),
        rtol=1e-8,
        atol=1e-8,
    )


def test_independent_concepts_are_orthogonal_in_the_causal_inner_product_only():
    gamma, pairs = planted()
    causal = InnerProduct.causal(gamma)
    euclidean, rng = InnerProduct.euclidean(WIDTH), np.random.default_rng(3)
    ours, plain, random = (
        direction_map(gamma, pairs, inner, draws=50, seed=0) for inner in (causal, euclidean, causal.random(rng))
    )
    off = ~np.eye(NUM_CONCEPTS, dtype=bool)
    assert ours.cosines[off].max() < 4 * 0.1 / np.sqrt(PAIRS)  # noise of a mean of PAIRS differences of length 2
    assert plain.off > 0.5
    assert plain.off_low > ours.off_high
    assert random.off > ours.off_high
    np.testing.assert_allclose(np.diagonal(ours.cosines), 1.0, atol=1e-12)
    assert (ours.low <= ours.cosines + 1e-12).all()
    assert (ours.cosines <= ours.high + 1e-12).all()


def test_a_random_inner_product_has_the_same_eigenvalues_and_no_preferred_direction():
    inner = InnerProduct.causal(planted()[0])
    rng = np.random.default_rng(4)
    drawn = [inner.random(rng).spectrum for _ in range(400)]
    np.testing.assert_array_equal(drawn[0].values, inner.spectrum.values)
    np.testing.assert_allclose(drawn[0].vectors.T @ drawn[0].vectors, np.eye(WIDTH), atol=1e-12)
    assert abs(np.mean([one.vectors[0, 0] for one in drawn])) < 4 / np.sqrt(400 * WIDTH)


def test_projections_without_a_group_are_those_of_means_taken_one_by_one():
    rng = np.random.default_rng(5)
    rows, groups = rng.standard_normal((9, 6)), np.array([0, 0, 1, 2, 3, 3, 3, 4, 5])
    counts, signs = rng.integers(0, 3, (3, 9)).astype(float), rng.choice([-1.0, 1.0], (3, 9))
    found = left_out_projections(rows @ rows.T, groups, counts, signs)
    for draw in range(3):
        for pair in range(9):
            others = groups != groups[pair]
            mean = (counts[draw, others] * signs[draw, others]) @ rows[others]
            expected = signs[draw, pair] * rows[pair] @ mean / np.linalg.norm(mean)
            assert found[draw, pair] == pytest.approx(expected, abs=1e-9)


def test_pairs_of_a_concept_project_beyond_random_tokens_by_what_the_world_says():
    """Random tokens differ by -2, 0 or 2 in a binary concept, with chances 1/4, 1/2, 1/4; its pairs by 2."""
    gamma, pairs = planted()
    loo = leave_one_out(gamma, pairs, InnerProduct.causal(gamma), random_pairs=5000, draws=99, seed=0)
    assert loo.p_values.max() == 0.01
    np.testing.assert_allclose(loo.shift, np.sqrt(2), atol=0.1)
    np.testing.assert_allclose(loo.auc, 3 / 4 + 1 / 8, atol=0.03)
    assert loo.low.min() > 1.0
    assert (loo.low < loo.shift).all()
    assert (loo.shift < loo.high).all()
    random = random_projections(
        gamma, pairs, InnerProduct.causal(gamma), number=5000, rng=np.random.default_rng([0, 0])
    )
    labels = np.repeat([1, 0], [PAIRS, 5000])
    scores = np.concatenate([loo.projections[:PAIRS], random[:, 0]])
    assert loo.auc[0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert loo.shift[0] == pytest.approx((loo.projections[:PAIRS].mean() - random[:, 0].mean()) / random[:, 0].std())


def test_random_pairs_have_no_direction():
    """Forty worlds of four concepts: no shift on average, an AUC of one half, and p values that keep their level."""
    tests = [
        leave_one_out(*world, InnerProduct.causal(world[0]), random_pairs=1000, draws=60, seed=seed)
        for seed, world in ((seed, unplanted(seed, num_tokens=512)) for seed in range(40))
    ]
    shifts, areas = (np.concatenate([getattr(test, name) for test in tests]) for name in ("shift", "auc"))
    assert abs(shifts.mean()) < 4 * shifts.std() / np.sqrt(len(shifts))
    assert abs(areas.mean() - 0.5) < 4 * areas.std() / np.sqrt(len(areas))
    assert sum((test.p_values <= 0.05).any() for test in tests) <= 6  # 99.7 % of binomial(40, .05)


def test_a_word_that_all_pairs_share_is_no_direction():
    """Pairs (a, b1), (a, b2) ... agree in -a; they are one group, and one group cannot be judged."""
    gamma, _ = unplanted()
    shared = TokenPairs.of(
        ["c"] * 20 + ["d"] * 20, [(0, i) for i in range(1, 21)] + [(i, i + 40) for i in range(50, 70)]
    )
    inner = InnerProduct.causal(gamma)
    loo = leave_one_out(gamma, shared, inner, random_pairs=1000, draws=99, seed=0)
    assert np.isnan([loo.shift[0], loo.p_values[0], loo.low[0]]).all()
    assert np.isfinite(loo.shift[1])
    separate = TokenPairs(
        table=PairTable(concepts=("c", "d"), concept=shared.table.concept, group=np.arange(40)),
        first=shared.first,
        second=shared.second,
    )
    assert leave_one_out(gamma, separate, inner, random_pairs=1000, draws=99, seed=0).shift[0] > 0.5  # the leak


def test_scores_over_the_vocabulary_correlate_as_causal_directions_do():
    """So uncorrelated scores are no second evidence; squares of independent concepts are uncorrelated as well."""
    gamma, pairs = planted()
    inner = InnerProduct.causal(gamma)
    found = vocabulary_correlations(gamma, concept_directions(gamma, pairs, inner).contexts)
    np.testing.assert_allclose(found.scores, direction_cosines(gamma, pairs, inner), atol=1e-9)
    off = ~np.eye(NUM_CONCEPTS, dtype=bool)
    assert np.abs(found.squares[off]).max() < 5 / np.sqrt(len(gamma))
    lengths = np.repeat(np.random.default_rng(6).choice([0.5, 2.0], len(gamma) // 2), 2)[:, None]
    together = (gamma - gamma.mean(axis=0)) * lengths  # uncorrelated, and not independent
    scores = vocabulary_correlations(
        together, concept_directions(together, pairs, InnerProduct.causal(together)).contexts
    )
    assert np.abs(scores.scores[off]).max() < 0.15
    assert scores.squares[off].min() > 0.5


def test_a_seed_gives_the_same_answer_twice_and_the_order_of_pairs_none():
    gamma, pairs = planted()
    inner = InnerProduct.causal(gamma)
    first, again = (leave_one_out(gamma, pairs, inner, random_pairs=1000, draws=30, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.null, again.null)
    np.testing.assert_array_equal(first.low, again.low)
    order = np.random.default_rng(7).permutation(pairs.table.num_pairs)
    names = [pairs.table.concepts[k] for k in pairs.table.concept[order]]
    moved = TokenPairs.of(names, list(zip(pairs.first[order].tolist(), pairs.second[order].tolist(), strict=True)))
    shuffled = leave_one_out(gamma, moved, inner, random_pairs=1000, draws=30, seed=3)
    back = [moved.table.concepts.index(name) for name in pairs.table.concepts]
    np.testing.assert_allclose(shuffled.projections, first.projections[order], atol=1e-9)
    np.testing.assert_allclose(shuffled.auc[back], first.auc, atol=1e-9)


# Contexts.


def contexts(gamma, pairs, number=60, seed=0):
    """Rows that continue with first or with second words of concept 0, and hold all else at random."""
    rng = np.random.default_rng([seed, 11])
    lift = concept_directions(gamma, pairs, InnerProduct.causal(gamma)).contexts[0]
    noise = InnerProduct.causal(gamma).dual(
        rng.standard_normal((2 * number, WIDTH)) @ np.linalg.cholesky(covariance_of(gamma)).T
    )
    return noise[:number] - 2 * lift, noise[number:] + 2 * lift


def test_a_concepts_own_direction_tells_its_contexts_and_others_do_not():
    gamma, pairs = planted()
    rows0, rows1 = contexts(gamma, pairs)
    words = concept_directions(gamma, pairs, InnerProduct.causal(gamma)).words
    documents = np.arange(60) // 2
    found = measurement(
        words, rows0, rows1, documents=(documents, documents), bootstrap=DocumentBootstrap(draws=200, seed=0)
    )
    labels = np.repeat([0, 1], 60)
    scores = np.concatenate([rows0, rows1]) @ words.T
    expected = [roc_auc_score(labels, scores[:, k]) for k in range(NUM_CONCEPTS)]
    np.testing.assert_allclose(found.auc.estimates, expected, atol=1e-12)
    np.testing.assert_allclose(found.sign.estimates, ((scores > 0) == labels[:, None]).mean(axis=0), atol=1e-12)
    assert found.auc.estimates[0] > 0.95
    assert found.sign.estimates[0] > 0.9
    low, high = np.quantile(found.auc.draws, [0.005, 0.995], axis=0)
    assert (low[1:] < 0.5).all()
    assert (high[1:] > 0.5).all()


def test_measuring_needs_contexts_on_both_sides():
    words = np.eye(3)
    with pytest.raises(NotEnoughData, match="0 contexts of first"):
        measurement(
            words,
            np.zeros((0, 3)),
            np.ones((2, 3)),
            documents=(np.zeros(0, int), np.arange(2)),
            bootstrap=DocumentBootstrap(draws=10, seed=0),
        )


def test_moving_contexts_raises_the_targets_by_what_the_inner_product_says_and_leaves_the_others():
    gamma, pairs = planted()
    inner = InnerProduct.causal(gamma)
    directions, alphas = concept_directions(gamma, pairs, inner), np.array([0.0, 0.5, 4.0])
    rows = contexts(gamma, pairs)[0][:10]
    moved = intervention(rows, steering=directions.contexts[0], unembedding=gamma, pairs=pairs, alphas=alphas)
    np.testing.assert_allclose(moved.observed, moved.predicted, atol=1e-9)
    products = inner.coordinates(differences(gamma, pairs)) @ inner.coordinates(directions.words[:1]).T
    np.testing.assert_allclose(moved.predicted, np.outer(alphas, products[:, 0]), atol=1e-9)
    own = pairs.table.concept == 0
    assert moved.observed[-1, own].min() > 5 * np.abs(moved.observed[-1, ~own].mean())
    assert (moved.overtaken[-1, own] >= moved.overtaken[0, own]).all()
    assert moved.overtaken[0, own].mean() < 0.5 < moved.overtaken[-1, own].mean()


def test_a_cap_on_logits_is_seen_as_a_difference_of_predicted_and_observed():
    gamma, pairs = planted()
    directions = concept_directions(gamma, pairs, InnerProduct.causal(gamma))
    rows, alphas = contexts(gamma, pairs)[0][:10], np.array([1.0])
    how = {"steering": directions.contexts[0], "unembedding": gamma, "pairs": pairs, "alphas": alphas}
    plain = intervention(rows, **how, logits=lambda moved: moved @ gamma.T)
    np.testing.assert_allclose(plain.observed, intervention(rows, **how).observed, atol=1e-9)
    capped = intervention(rows, **how, logits=lambda moved: 2 * np.tanh(moved @ gamma.T / 2))
    assert np.abs(capped.observed - capped.predicted).max() > 0.1


def test_what_cannot_be_tested_is_named():
    gamma, pairs = planted()
    inner = InnerProduct.causal(gamma)
    with pytest.raises(NotEnoughData, match="40 tokens by 24 features"):
        InnerProduct.causal(gamma[:40])
    broken = gamma.copy()
    broken[5000 % len(gamma), 2] = np.inf
    with pytest.raises(NotEnoughData, match="not finite, the first is number 904"):
        InnerProduct.causal(broken)
    with pytest.raises(NotEnoughData, match="4 groups"):
        leave_one_out(gamma, TokenPairs.of(["c"], [(0, 1)]), inner, random_pairs=1000, draws=30, seed=0)
    with pytest.raises(ConfigError, match="1 random pairs"):
        leave_one_out(gamma, pairs, inner, random_pairs=1, draws=30, seed=0)
