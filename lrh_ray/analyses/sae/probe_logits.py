"""Log-odds of supervised probes on their words: from the same words, as published, and from others.

    probes = word_probes(rows, labels, groups, inverse_penalty=1.0, repeats=20, seed=0)
    probes.published             # [W]: of a probe that was fitted to these words
    probes.held_out              # [W]: of probes that were fitted to other groups of words
    probes.ceiling               # how well probes of random halves agree with these, on the other halves

A probe on fewer words than features separates them whatever they mean, and its log-odds are then its own labels.
Log-odds of folds left out say what a reader of other words gets, and are what latents are held against.

No latent is perfect where the probe is not. `ceiling` is the correlation that a supervised direction reaches which was
made from the words that choose latents, on the words that score them: what the latents compete with.

Legend: W words, D features, F fits.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.kernel_logistic import fit_kernel_logistic
from lrh_ray.analyses.pair_metrics import gram_of
from lrh_ray.analyses.sae.upper_bound import COVERED, correlations, random_halves
from lrh_ray.errors import NotEnoughData

FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WordProbes:
    """What probes of one concept say of its words [W], their accuracy on words left out, and their ceiling."""

    published: np.ndarray
    held_out: np.ndarray
    accuracy: float
    ceiling: float
    covered: float
    """Share of halves in which the supervised direction of `ceiling` correlates above .5: the ceiling of coverage."""


def word_probes(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, inverse_penalty: float, repeats: int, seed: int
) -> WordProbes:
    """Fit probes to rows [W, D] with labels [W] of 0/1; groups [W] stay together; `inverse_penalty` is C of the loss.

    Raises:
        NotEnoughData: Fewer than 4 groups, or a fold without both classes.
        NotConverged: A probe that does not reach its certificate.
    """
    gram, labels = gram_of(rows.astype(np.float64)), labels.astype(np.float64)
    held_out = cross_validated(gram, labels, groups, inverse_penalty=inverse_penalty, seed=seed)
    halves = random_halves(groups, repeats, np.random.default_rng([seed, 3]))
    of_halves = scores(gram, labels, halves.astype(np.float64), inverse_penalty=inverse_penalty)
    agreements = [
        correlations(held_out[~half], own[~half, None], exponential=False)[0]
        for own, half in zip(of_halves, halves, strict=True)
    ]
    return WordProbes(
        published=scores(gram, labels, np.ones((1, len(labels))), inverse_penalty=inverse_penalty)[0],
        held_out=held_out,
        accuracy=float(((held_out > 0) == (labels > 0.5)).mean()),
        ceiling=float(np.mean(agreements)),
        covered=float((np.array(agreements) > COVERED).mean()),
    )


def cross_validated(
    gram: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, inverse_penalty: float, seed: int
) -> np.ndarray:
    """Log-odds [W] of each word by a probe of the folds that its group is not in.

    Raises:
        NotEnoughData: A fold without both classes among the others.
    """
    names, member = np.unique(groups, return_inverse=True)
    num = min(FOLDS, len(names))
    fold = np.random.default_rng([seed, 2]).permutation(np.arange(len(names)) % num)[member]
    outside = np.arange(num)[:, None] != fold
    if num < 2 or any(len(np.unique(labels[own])) < 2 for own in outside):
        raise NotEnoughData(
            f"The {len(names)} groups of a concept leave a fold without words of both kinds; add groups."
        )
    every = scores(gram, labels, outside.astype(np.float64), inverse_penalty=inverse_penalty)
    return np.asarray(every[fold, np.arange(len(labels))])


def scores(gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, inverse_penalty: float) -> np.ndarray:
    """Log-odds [F, W] of all words by probes of the words with a weight [F, W]."""
    every = np.broadcast_to(labels, weights.shape)
    fit = fit_kernel_logistic(gram, every, weights, inverse_penalty=inverse_penalty)
    return np.asarray(fit.coefficients @ gram + fit.intercepts[:, None])
