"""The published bound with what it lacks: an interval, its height by chance, and how far it lies above that.

    found = published_test(logits, latents, groups, draws=200, seed=0)      # logits of probes of the same words
    found.bound.mean, found.mean                   # as published; the same with its interval
    found.chance                                   # what the same procedure gives where nothing is there
    found.corrected                                # (bound - chance) / (1 - chance)

Probe, choice and score are of the same words, and so is the null: the published log-odds with the sign of whole groups
turned at random (`bound_test`). Log-odds of probes on words that they were fitted to lie far from 0 and close together;
held-out ones do not, and the best of thousands of latents goes less far with the one than with the other. Chance has to
be that of the log-odds that the bound was made from.

The interval draws groups of words with replacement, chooses and scores on what was drawn, and takes the spread: drawn
words are fewer, and their bounds too high.

Legend: C concepts, W words of a concept, M latents, B draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.pair_test import SPLITS_PER_DRAW, resampled_halves
from lrh_ray.analyses.sae.above_chance import above_chance
from lrh_ray.analyses.sae.bound_test import mean_around, turned_logits
from lrh_ray.analyses.sae.upper_bound import Bound, chosen_and_scored, upper_bound


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PublishedTest:
    """The bound of all words, its mean with a 95 % interval, and means and coverages [B] of the null."""

    bound: Bound
    mean: Estimate
    null: np.ndarray
    null_coverage: np.ndarray

    @property
    def chance(self) -> float:
        """Mean correlation that the null gives."""
        return float(self.null.mean())

    @property
    def corrected(self) -> Estimate:
        """The mean counted from chance."""
        return above_chance(self.mean, self.chance)


def published_test(
    logits: Sequence[np.ndarray],
    latents: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    *,
    draws: int,
    seed: int,
    exponential: bool = True,
) -> PublishedTest:
    """Test latents [W, M] of every concept against published logits [W]; `groups` [W] of words stay together.

    Costs two products [B, W] x [W, M] a concept, and 2 B assignments.

    Raises:
        NotEnoughData: As `upper_bound`.
    """
    bound = upper_bound(logits, latents, exponential=exponential)
    rng = np.random.default_rng([seed, 4])
    turned = [turned_logits(u, own, draws, rng) for u, own in zip(logits, groups, strict=True)]
    everyone = [np.ones_like(own) for own in turned]
    null = chosen_and_scored(turned, latents, everyone, everyone, exponential=exponential)
    drawn = [resampled_halves(own, draws, rng)[0][::SPLITS_PER_DRAW] for own in groups]  # all splits have one count
    same = [np.broadcast_to(u, (draws, len(u))) for u in logits]
    resampled = chosen_and_scored(same, latents, drawn, drawn, exponential=exponential)
    return PublishedTest(
        bound=bound,
        mean=mean_around(bound.mean, np.array([one.mean for one in resampled])),
        null=np.array([one.mean for one in null]),
        null_coverage=np.array([one.coverage for one in null]),
    )
