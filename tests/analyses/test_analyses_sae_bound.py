"""The published bound is reproduced on noise, and its honest form finds nothing there."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.sae.above_chance import above_chance, share_above
from lrh_ray.analyses.sae.bound_test import bound_test, turned_logits
from lrh_ray.analyses.sae.probe_logits import cross_validated, word_probes
from lrh_ray.analyses.sae.published_test import published_test
from lrh_ray.analyses.sae.upper_bound import (
    chosen_and_scored,
    correlations,
    held_out_bound,
    random_halves,
    upper_bound,
    weighted_correlations,
)
from lrh_ray.errors import NotEnoughData

SIZES = (*[50] * 14, 25, 158, 4, 52, 73, 100, 87, 87, 86, 116, 128, 180, 228)
"""Pairs of the paper's 27 concepts."""


def noise(latents, seed=0):
    """Probes that separate the two words of each pair, and latents that know nothing of them."""
    rng = np.random.default_rng(seed)
    logits = [np.concatenate([rng.standard_normal(n) + 3, rng.standard_normal(n) - 3]) for n in SIZES]
    groups = [np.tile(np.arange(n), 2) for n in SIZES]
    return logits, [rng.standard_normal((2 * n, latents), dtype=np.float32) for n in SIZES], groups


@pytest.fixture(scope="module")
def gaussian():
    return noise(32_768)


def test_noise_reaches_a_third_as_published_and_nothing_held_out(gaussian):
    logits, latents, groups = gaussian
    published = upper_bound(logits, latents, exponential=False)
    assert 0.33 <= published.mean <= 0.40
    honest = np.mean(
        [bound.mean for bound in held_out_bound(logits, latents, groups, splits=2, seed=0, exponential=False)]
    )
    assert abs(honest) <= 0.05
    assert len(set(published.latents.tolist())) == len(SIZES)


def test_a_latent_that_knows_a_concept_is_found_and_scores_on_words_it_was_not_chosen_on():
    logits, latents, groups = noise(500, seed=1)
    for concept, (u, z) in enumerate(zip(logits, latents, strict=True)):
        z[:, 7 + concept] = 0.3 * u
    published = upper_bound(logits, latents, exponential=False)
    np.testing.assert_array_equal(published.latents, 7 + np.arange(len(SIZES)))
    assert published.mean == pytest.approx(1)
    for bound in held_out_bound(logits, latents, groups, splits=3, seed=0, exponential=False):
        assert bound.mean == pytest.approx(1)
        assert bound.coverage == 1


@pytest.mark.parametrize("exponential", [True, False])
def test_correlations_are_pearsons(exponential):
    rng = np.random.default_rng(0)
    u, z = rng.standard_normal(40), rng.standard_normal((40, 9))
    z[:, 4] = 2.5
    z[:, 5] *= 400  # exp overflows
    found = correlations(u, z, exponential=exponential)
    for latent in (0, 1, 2, 3, 6, 7, 8):
        own = np.exp(z[:, latent]) if exponential else z[:, latent]
        assert found[latent] == pytest.approx(pearsonr(u, own).statistic, rel=1e-10)
    assert found[4] == 0
    assert np.isfinite(found).all()


def test_too_little_is_named():
    logits, latents, groups = noise(20)
    with pytest.raises(NotEnoughData, match="20 latents"):
        upper_bound(logits, latents)
    logits, latents, groups = noise(40)
    groups[3] = np.zeros(len(groups[3]), int)
    with pytest.raises(NotEnoughData, match="1 groups"):
        held_out_bound(logits, latents, groups, splits=1, seed=0)


@pytest.mark.parametrize("exponential", [True, False])
def test_weights_are_repeated_words(exponential):
    rng = np.random.default_rng(1)
    u, z = rng.standard_normal((3, 20)), 5 * rng.standard_normal((20, 6))
    counts = rng.integers(0, 3, (3, 20))
    found = weighted_correlations(u, z, counts.astype(float), exponential=exponential)
    for f, own in enumerate(counts):
        again = np.repeat(np.arange(20), own)
        np.testing.assert_allclose(found[f], correlations(u[f, again], z[again], exponential=exponential), rtol=1e-9)


def test_a_bound_is_scored_on_the_words_it_is_told():
    """Word for word: the latent of the largest correlation on one half, and scipy's correlation on the other."""
    logits, latents, groups = noise(60, seed=2)
    one = [own[16:17] for own in (logits, latents, groups)]  # a concept of 8 words
    half = random_halves(one[2][0], 5, np.random.default_rng(0))
    u = np.broadcast_to(one[0][0], half.shape)
    for bound, chosen in zip(chosen_and_scored([u], one[1], [half], [~half], exponential=False), half, strict=True):
        own = [pearsonr(one[0][0][chosen], z[chosen]).statistic for z in one[1][0].T]
        latent = int(np.argmax(own))
        assert bound.latents.tolist() == [latent]
        other = pearsonr(one[0][0][~chosen], one[1][0][~chosen, latent]).statistic
        assert bound.correlations[0] == pytest.approx(other, rel=1e-9)


SMALL = (20, 30, 40)


def words(seed, strength=0.0):
    """Three concepts of word pairs with Gaussian latents; of the first concept one latent knows."""
    rng = np.random.default_rng(seed)
    logits = [np.concatenate([rng.standard_normal(n) + 3, rng.standard_normal(n) - 3]) for n in SMALL]
    latents = [rng.standard_normal((2 * n, 80)) for n in SMALL]
    latents[0][:, 7] += strength * logits[0]
    return logits, latents, [np.tile(np.arange(n), 2) for n in SMALL]


def judged(seed, strength=0.0):
    return bound_test(*words(seed, strength), repeats=6, draws=60, seed=seed, exponential=False)


def test_the_test_finds_a_latent_that_knows_and_nothing_else():
    found = judged(0, strength=1.0)
    assert found.p_values[0] <= 1 / 61 + 1e-9
    assert found.low[0] > 0.5
    assert found.low[0] < found.correlations[0] < found.high[0]
    assert (found.p_values[1:] > 0.05).all()
    assert found.mean.low < found.correlations.mean() < found.mean.high
    assert 0 < found.coverage.value <= 0.5


def test_the_null_is_centred_and_finds_nothing_in_noise():
    trials = [judged(seed) for seed in range(6)]
    assert abs(np.mean([trial.null.mean() for trial in trials])) < 0.03
    assert np.mean([(trial.p_values <= 0.05).any() for trial in trials]) <= 0.5  # at level .05, one in twenty
    assert max(trial.null_coverage.mean() for trial in trials) < 0.05
    assert abs(np.mean([trial.corrected.value for trial in trials])) < 0.1


def test_coverage_of_the_null_is_that_of_its_draws():
    """Of latents that are the logits themselves, every draw of the null covers what its mean says."""
    found = judged(0, strength=1.0)
    assert len(found.null_coverage) == 60
    assert ((found.null_coverage >= 0) & (found.null_coverage <= 1)).all()
    assert found.coverage.value > np.quantile(found.null_coverage, 0.975)


def published(seed, strength=0.0, draws=60):
    return published_test(*words(seed, strength), draws=draws, seed=seed, exponential=False)


def test_chance_as_published_is_what_noise_reaches_and_corrected_it_is_nothing():
    trials = [published(seed) for seed in range(8)]
    assert np.mean([trial.chance for trial in trials]) == pytest.approx(
        np.mean([trial.bound.mean for trial in trials]), abs=0.03
    )
    assert abs(np.mean([trial.corrected.value for trial in trials])) < 0.05
    assert sum(trial.corrected.low < 0 < trial.corrected.high for trial in trials) >= 6


def test_chance_depends_on_the_log_odds_that_are_turned():
    """Codes that fire rarely go far with a probe that is sure of few words, and not with one that separates all."""
    rng = np.random.default_rng(0)
    logits, _, groups = words(0)
    latents = [np.maximum(rng.standard_normal((len(u), 80)) - 2, 0) for u in logits]
    heavy = [rng.standard_t(1.1, len(u)) for u in logits]
    of_heavy = published_test(heavy, latents, groups, draws=60, seed=0, exponential=False).chance
    of_sure = published_test(logits, latents, groups, draws=60, seed=0, exponential=False).chance
    assert of_heavy > of_sure + 0.2


def test_a_perfect_match_is_1_however_high_chance_is():
    logits, latents, groups = words(3)
    for concept, (u, z) in enumerate(zip(logits, latents, strict=True)):
        z[:, concept] = u
    found = published_test(logits, latents, groups, draws=40, seed=0, exponential=False)
    assert found.chance > 0.2
    assert found.corrected.value == pytest.approx(1)
    assert found.mean.value == found.bound.mean == pytest.approx(upper_bound(logits, latents, exponential=False).mean)


def test_numbers_are_counted_from_chance():
    found = above_chance(Estimate(value=0.55, low=0.1, high=1.0), 0.1)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.0, 1.0))
    np.testing.assert_allclose(share_above(np.array([0.0, 0.5]), 0.5), [-1, 0])


def test_signs_are_turned_by_whole_groups():
    u, groups = np.arange(10.0), np.repeat(np.arange(5), 2)
    turned = turned_logits(u, groups, 50, np.random.default_rng(0))
    ratio = turned / (u - u.mean())
    assert set(np.unique(ratio.round(9))) == {-1.0, 1.0}
    np.testing.assert_array_equal(ratio[:, ::2], ratio[:, 1::2])
    assert abs(ratio.mean()) < 0.2


def test_probes_of_folds_are_scikit_learns():
    rng = np.random.default_rng(0)
    rows, labels, groups = rng.standard_normal((60, 8)), np.tile([1, 0], 30), np.repeat(np.arange(20), 3)
    rows[:, 0] += labels
    centred = rows - rows.mean(axis=0)
    found = cross_validated(centred @ centred.T, labels.astype(float), groups, inverse_penalty=0.5, seed=3)
    fold = np.random.default_rng([3, 2]).permutation(np.arange(20) % 5)[groups]
    for one in range(5):
        model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-10).fit(
            rows[fold != one], labels[fold != one]
        )
        np.testing.assert_allclose(found[fold == one], model.decision_function(rows[fold == one]), atol=1e-5)


def test_a_probe_of_its_own_words_says_what_one_of_others_does_not():
    """More features than words and no concept: published log-odds separate, held-out ones and their ceiling do not."""
    rng = np.random.default_rng(0)
    labels, groups = np.tile([1, 0], 40), np.repeat(np.arange(40), 2)
    found = word_probes(rng.standard_normal((80, 300)), labels, groups, inverse_penalty=1.0, repeats=5, seed=0)
    assert ((found.published > 0) == labels).all()
    assert 0.3 < found.accuracy < 0.7
    rows = rng.standard_normal((80, 300))
    rows[:, 0] += 20 * labels
    told = word_probes(rows, labels, groups, inverse_penalty=1.0, repeats=5, seed=0)
    assert told.accuracy == 1
    assert told.ceiling > 0.9
    assert told.covered == 1
    assert found.covered < told.covered
    with pytest.raises(NotEnoughData, match="words of both kinds"):
        word_probes(
            rows[:10],
            np.repeat([1, 0], 5),
            np.repeat(np.arange(4), [5, 2, 2, 1]),
            inverse_penalty=1.0,
            repeats=2,
            seed=0,
        )
