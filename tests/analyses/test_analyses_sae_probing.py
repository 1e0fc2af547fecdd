"""Few latents read and taken out: each formula against the long way round, and nulls that find nothing."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.metrics import accuracy
from lrh_ray.analyses.sae.absorption import absorption, main_latents
from lrh_ray.analyses.sae.perturbation import (
    accuracies,
    effects,
    erased_parts,
    parts,
    reconstructed,
    selectivity,
    strongest,
)
from lrh_ray.analyses.sae.reading import random_reader, sparse_codes
from lrh_ray.analyses.sae.sparse_probing import (
    PENALTY,
    LabelledFeatures,
    beside,
    best_latents,
    dense_probes,
    latent_scores,
    mean_differences,
    random_latents,
)

N, M, D = 600, 50, 12


def codes_of(labels, rng, firing=0.1, knowing=(3,)):
    """Sparse codes of which some latents fire more on rows of class 1."""
    own = rng.random((len(labels), M)) * (rng.random((len(labels), M)) < firing)
    for latent in knowing:
        own[:, latent] = (0.5 + rng.random(len(labels))) * (rng.random(len(labels)) < np.where(labels > 0.5, 0.9, 0.05))
    return csr_array(own.astype(np.float32))


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    labels, other = np.tile([1, 0], N // 2), np.tile([0, 1, 1], N // 3)
    return labels, codes_of(labels, rng), codes_of(labels, rng), other


def test_differences_are_of_class_means_and_rank_the_latent_that_knows_first(planted):
    labels, codes, _, _ = planted
    dense = codes.toarray()
    found = mean_differences(codes, labels)
    np.testing.assert_allclose(found, dense[labels == 1].mean(axis=0) - dense[labels == 0].mean(axis=0), atol=1e-7)
    order = best_latents(found, 5)
    assert order[0] == 3
    assert (np.diff(np.abs(found[order])) <= 0).all()
    assert len(best_latents(np.array([0.0, -2.0, 0.0]), 3)) == 1


def test_scores_of_latents_are_scikit_learns_in_units_of_their_spread(planted):
    labels, codes, held_out, _ = planted
    latents = np.array([3, 8, 20])
    spread = codes.toarray()[:, latents].std(axis=0)
    own, other = (part.toarray()[:, latents].astype(np.float64) / spread for part in (codes, held_out))
    penalty = PENALTY * own.var(axis=0).mean()  # ours is of the mean loss, theirs of the sum
    model = LogisticRegression(C=1 / (penalty * N), solver="newton-cholesky", tol=1e-12).fit(own, labels)
    np.testing.assert_allclose(
        latent_scores((codes, labels), held_out, latents), model.decision_function(other), atol=1e-4
    )


def test_one_latent_is_enough_where_one_knows_and_random_ones_are_at_chance(planted):
    labels, codes, held_out, _ = planted
    rows = LabelledFeatures(features=np.zeros((N, 1)), labels=labels[:, None], documents=np.arange(N) // 10)
    rng = np.random.default_rng(1)
    without_it = codes[:, np.delete(np.arange(M), 3)]
    scores = [
        latent_scores((codes, labels), held_out, best_latents(mean_differences(codes, labels), 1)),
        *(
            latent_scores(
                (without_it, labels), held_out[:, np.delete(np.arange(M), 3)], random_latents(without_it, 5, rng)
            )
            for _ in range(5)
        ),
    ]
    judged = beside(np.stack(scores, axis=1), np.zeros(6, np.int64), rows)
    found = DocumentBootstrap(draws=50, seed=0).apply(lambda weights: accuracy(judged, 0.0, weights), N // 10)
    assert found.estimates[0] > 0.85
    assert abs(found.estimates[1:].mean() - 0.5) < 0.05


def test_latents_that_never_fire_say_nothing():
    labels, silent = np.tile([1, 0], 10), csr_array((20, 4), dtype=np.float32)
    np.testing.assert_array_equal(latent_scores((silent, labels), silent, np.array([0, 2])), 0)
    assert len(random_latents(silent, 3, np.random.default_rng(0))) == 0
    np.testing.assert_array_equal(latent_scores((silent, labels), silent, np.zeros(0, np.int64)), 0)


def test_dense_probes_take_the_penalty_that_validation_rows_prefer():
    """With more features than rows the strongest penalty is best, and each label chooses for itself."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 2))
    rows = LabelledFeatures(features=rng.standard_normal((40, 60)), labels=labels, documents=np.arange(40))
    noise = LabelledFeatures(
        features=rng.standard_normal((200, 60)), labels=rng.integers(0, 2, (200, 2)), documents=np.arange(200)
    )
    found = dense_probes(rows, noise, (1e-3, 1e-1, 10.0))
    assert found.weights.shape == (60, 2)
    np.testing.assert_array_equal(found.columns, [0, 1])
    assert found.regularisation.min() > 1
    again = dense_probes(rows, rows, (1e-3, 1e-1, 10.0))  # on its own rows the weakest
    assert again.regularisation.max() < 0.1


@pytest.fixture(scope="module")
def reader():
    rng = np.random.default_rng(5)
    return random_reader(2 * rng.standard_normal((M, D)), rng.standard_normal(D), codes=4.2, seed=1)


def test_random_directions_have_the_lengths_the_offset_and_the_codes_they_are_told(reader):
    rng = np.random.default_rng(5)
    encoder, offset = 2 * rng.standard_normal((M, D)), rng.standard_normal(D)
    np.testing.assert_allclose(
        np.linalg.norm(reader.parameters["encoder"].numpy(), axis=1), np.linalg.norm(encoder, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(reader.parameters["decoder_bias"].numpy(), offset, rtol=1e-6)
    rows = 3 * rng.standard_normal((2500, D)).astype(np.float32)
    codes = sparse_codes(reader, rows)
    assert codes.shape == (2500, M)
    assert set(np.diff(codes.indptr)) == {4}
    np.testing.assert_allclose(codes.toarray(), reader.codes(torch.from_numpy(rows)).numpy(), atol=1e-4)


def test_taking_latents_out_is_decoding_without_them(reader):
    rng = np.random.default_rng(6)
    rows = 3 * rng.standard_normal((40, D)).astype(np.float32)
    codes, probes = sparse_codes(reader, rows), rng.standard_normal((D, 3))
    decoder, offset = reader.parameters["decoder"].numpy(), reader.parameters["decoder_bias"].numpy()
    latents = np.array([1, 4, 30])
    ablated = codes.toarray()
    ablated[:, latents] = 0
    whole, rest = (reader.decode(torch.from_numpy(own)).numpy() for own in (codes.toarray(), ablated))
    np.testing.assert_allclose(reconstructed(codes, decoder, offset, probes), whole @ probes, atol=1e-4)
    np.testing.assert_allclose(parts(codes, latents, decoder, probes), (whole - rest) @ probes, atol=1e-4)
    assert parts(codes, latents[:0], decoder, probes).tolist() == np.zeros((40, 3)).tolist()
    mean = rows.mean(axis=0).astype(np.float64)
    w = probes[:, 1]
    without = rows - np.outer((rows - mean) @ w, w) / (w @ w)
    np.testing.assert_allclose(erased_parts((rows - mean) @ w, 1, probes), (rows - without) @ probes, atol=1e-5)


def test_effects_are_of_latents_that_fire_more_and_point_along_the_probe():
    decoder, probe = np.array([[1.0, 0], [1, 0], [-1, 0], [0, 1]]), np.array([2.0, 0])
    found = effects(np.array([0.5, -0.5, 0.5, 0.5]), decoder, probe)
    np.testing.assert_allclose(found, [1, 0, -1, 0])
    assert strongest(found, 3).tolist() == [0]


def test_selectivity_is_the_own_drop_less_the_mean_of_the_others():
    drops = np.array([[[0.4, 0.1, 0.0], [0.2, 0.3, 0.0], [0.0, 0.0, 0.5]]])
    assert selectivity(drops)[0] == pytest.approx(0.4 - 0.3 / 6)


def test_latents_of_two_concepts_are_selective_and_random_ones_are_not():
    """Rows are sums of two concepts' directions and others; the dictionary is the truth."""
    rng = np.random.default_rng(3)
    labels = [np.tile([1, 0], N // 2), np.tile([1, 1, 0, 0], N // 4)]
    dense = codes_of(labels[0], rng, knowing=(3,)).toarray()
    dense[:, 8] = codes_of(labels[1], rng, knowing=(8,)).toarray()[:, 8]
    codes = csr_array(dense)
    decoder = rng.standard_normal((M, 64)) / 8
    rows = codes @ decoder
    probes, intercepts = np.empty((64, 2)), np.empty(2)
    for place, own in enumerate(labels):
        model = LogisticRegression(C=10.0, solver="newton-cholesky").fit(rows, own)
        probes[:, place], intercepts[place] = model.coef_[0], model.intercept_[0]
    ones = np.ones((1, N // 10))

    def score(chosen):
        drops = np.empty((1, 2, 2))
        for j, own in enumerate(labels):
            intact = rows @ probes[:, j] + intercepts[j]
            lost = np.column_stack([parts(codes, one, decoder, probes[:, [j]])[:, 0] for one in chosen])
            found = accuracies(np.column_stack([intact, intact[:, None] - lost]), own, np.arange(N) // 10, ones)
            drops[0, :, j] = found[0, 0] - found[0, 1:]
        return selectivity(drops)[0]

    chosen = [
        strongest(effects(mean_differences(codes, own), decoder, probes[:, j]), 1) for j, own in enumerate(labels)
    ]
    assert [one.tolist() for one in chosen] == [[3], [8]]
    assert score(chosen) > 0.3
    assert abs(np.mean([score([rng.permutation(M)[:1], rng.permutation(M)[:1]]) for _ in range(20)])) < 0.1


def test_a_word_whose_latent_has_swallowed_the_letter_is_absorbed():
    """Latent 0 is the letter, latent 1 the word that has the letter in its direction, latent 2 has nothing of it."""
    letter, word, other = np.eye(4)[:3]
    decoder = np.stack([letter, (letter + word) / np.sqrt(2), other])
    codes = csr_array(np.array([[1.0, 0, 1], [0, 1.5, 0], [0, 0, 2], [0, 0.1, 0], [0, 1.5, 0]], dtype=np.float32))
    projections = np.array([1.0, 1.0, 1.0, 1.0, -0.2])
    found = absorption(codes, projections, np.array([0]), decoder, letter)
    assert found.missed.tolist() == [False, True, True, True, True]
    # the third has no latent along the letter, the fourth too little of it, the fifth is on the other side
    assert found.absorbed.tolist() == [False, True, False, False, False]
    assert found.latents[1] == 1
    assert absorption(codes[:0], projections[:0], np.array([0]), decoder, letter).missed.shape == (0,)


def test_main_latents_are_as_many_as_raise_f1():
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 8 == 0).astype(int)
    dense = codes_of(labels, rng, knowing=()).toarray()
    half = np.cumsum(labels) % 2
    dense[:, 5] = labels * half
    dense[:, 6] = labels * (1 - half)
    assert set(main_latents(csr_array(dense), labels).tolist()) == {5, 6}
    dense[:, 5] = labels
    assert main_latents(csr_array(dense), labels).tolist() == [5]
    assert len(main_latents(csr_array((400, 7), dtype=np.float32), labels)) == 0
