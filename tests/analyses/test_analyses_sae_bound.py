"""The published bound is reproduced on noise, and its honest form finds nothing there."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from lrh_ray.analyses.sae.upper_bound import correlations, held_out_bound, upper_bound
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
