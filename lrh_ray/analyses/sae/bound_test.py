"""Is a latent's match with a probe more than chance? The held-out bound with intervals, and a null of turned signs.

    test = bound_test(logits, latents, groups, repeats=20, draws=200, seed=0)
    test.correlations, test.low, test.high, test.p_values       # [C], on words that chose no latent
    test.mean, test.coverage                                    # over concepts, each with its interval
    test.corrected                                              # the mean, counted from what turned signs give

Intervals draw groups of words with replacement, halve the groups drawn, choose and score anew: other words of the same
concepts. The null turns the sign of the centred log-odds of whole groups at random. Of word pairs that swaps the two
words of a pair; of documents, their labels. Latents stay as they are, so that their sparseness, and how they hang
together, are those of the autoencoder. What the published mode gives is in `published_test`.

What can go wrong: words of one group only can be turned together only, and a concept of few groups has a wide null.

Legend: C concepts, W words of a concept, M latents, B draws, F splits of the draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.multiplicity import max_t_p_values
from lrh_ray.analyses.pair_test import SPLITS_PER_DRAW, interval_around, per_draw, resampled_halves
from lrh_ray.analyses.sae.above_chance import above_chance
from lrh_ray.analyses.sae.upper_bound import Bound, chosen_and_scored, held_out_bound, random_halves


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BoundTest:
    """Correlations [C] on words that chose no latent, meaned over splits; 95 % intervals over groups of words.

    `null` [B, C] are the same with turned signs, `null_coverage` [B] their coverages; p values are adjusted for all
    concepts.
    """

    correlations: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null: np.ndarray
    null_coverage: np.ndarray
    p_values: np.ndarray
    mean: Estimate
    coverage: Estimate

    @property
    def corrected(self) -> Estimate:
        """The mean over concepts, counted from that of the null."""
        return above_chance(self.mean, float(self.null.mean()))


def bound_test(
    logits: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    *,
    repeats: int,
    draws: int,
    seed: int,
    exponential: bool = True,
) -> BoundTest:
    """Test the latents [W, M] of every concept against its logits [W]; `groups` [W] of words stay together.

    Costs about F = 4 draws products [F, W] x [W, M] three times over, and F assignments, for the interval and for the
    null.

    Raises:
        NotEnoughData: As `held_out_bound`; or fewer than 20 draws.
    """
    bounds = held_out_bound(logits, latents, groups, splits=repeats, seed=seed, exponential=exponential)
    found = _correlations(bounds).mean(axis=0)
    rng = np.random.default_rng([seed, 1])
    turned = [turned_logits(u, own, draws, rng) for u, own in zip(logits, groups, strict=True)]
    turned_bounds = _turned(turned, latents, groups, rng, exponential)
    null = _per_draw(_correlations(turned_bounds))
    resampled = _resampled(logits, latents, groups, draws, rng, exponential)
    drawn = _per_draw(_correlations(resampled))
    low, high = interval_around(found, drawn)
    return BoundTest(
        correlations=found,
        low=low,
        high=high,
        null=null,
        null_coverage=_coverages(turned_bounds),
        p_values=max_t_p_values(found, null),
        mean=mean_around(float(found.mean()), drawn.mean(axis=1)),
        coverage=_share(float(np.mean([one.coverage for one in bounds])), resampled),
    )


def turned_logits(logits: np.ndarray, groups: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Centred log-odds [B, W] with the sign of random groups turned."""
    names, member = np.unique(groups, return_inverse=True)
    signs = rng.integers(0, 2, (draws, len(names))) * 2.0 - 1.0
    return np.asarray(signs[:, member] * (logits - logits.mean()))


def mean_around(value: float, draws: np.ndarray) -> Estimate:
    """A mean correlation and the spread of its draws [B] around it."""
    (low,), (high,) = interval_around(np.array([value]), draws[:, None])
    return Estimate(value=value, low=float(low), high=float(high))


def _turned(
    turned: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    rng: np.random.Generator,
    exponential: bool,
) -> list[Bound]:
    """Held-out bounds of F splits with turned signs; every draw has a few splits, as the interval's do."""
    several = [np.repeat(own, SPLITS_PER_DRAW, axis=0) for own in turned]
    halves = [random_halves(own, len(u), rng) for own, u in zip(groups, several, strict=True)]
    return chosen_and_scored(several, latents, halves, [~half for half in halves], exponential=exponential)


def _resampled(
    logits: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    draws: int,
    rng: np.random.Generator,
    exponential: bool,
) -> list[Bound]:
    """Bounds of F splits of groups drawn with replacement."""
    drawn = [resampled_halves(own, draws, rng) for own in groups]
    same = [np.broadcast_to(u, (draws * SPLITS_PER_DRAW, len(u))) for u in logits]
    choosing = [counts * halves for counts, halves in drawn]
    scoring = [counts * ~halves for counts, halves in drawn]
    return chosen_and_scored(same, latents, choosing, scoring, exponential=exponential)


def _correlations(bounds: Sequence[Bound]) -> np.ndarray:
    return np.stack([one.correlations for one in bounds])


def _per_draw(of_splits: np.ndarray) -> np.ndarray:
    """[F, C] meaned over the splits of each draw."""
    return np.stack([per_draw(column) for column in of_splits.T], axis=1)


def _coverages(bounds: Sequence[Bound]) -> np.ndarray:
    """[B] meaned over the splits of each draw."""
    return per_draw(np.array([one.coverage for one in bounds]))


def _share(value: float, resampled: Sequence[Bound]) -> Estimate:
    """A share of concepts: the spread of the draws around the estimate, inside [0, 1]."""
    draws = _coverages(resampled)
    low, high = np.clip(np.quantile(draws - np.median(draws), [0.025, 0.975]) + value, 0.0, 1.0)
    return Estimate(value=value, low=float(low), high=float(high))
