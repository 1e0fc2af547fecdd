"""Feature absorption: words where the latents of a letter are silent and another takes over (Chanin et al. 2409.14507).

A latent that fires on words with S may not fire on "short", because the latent of "short" has the letter in its own
direction: fewer codes, the same reconstruction. Whoever reads the first latent as "begins with S" is then wrong in
a way that no accuracy of it foretells.

    main = main_latents(codes, labels)                                  # of a letter, on the training words
    found = absorption(held_out_codes, scores, main, decoder, probe)    # on held-out words of that letter
    found.missed, found.absorbed                                        # masks of the words

The task is the first letter of a word, asked of the row of a word that is one token. `probe` is a dense logistic probe
of the letter, p its direction of length 1. As in SAEBench (arXiv 2503.09532), without a model at hand:

- *main latents*: ranked by the difference of mean codes, words of the letter less others; the first, and each next one
  while it raises the F1 of their logistic probe by .03 or more, at most 5.
- a word counts where the dense probe calls its letter, at equal priors (and so the letter is there to be found).
- *missed*: no main latent fires. The share of these is the ceiling of absorption.
- *absorbed*: missed; the row's projection (x - offset) . p is above 0; and of all latents the one that adds most along
  p, z_d (decoder_d . p), has a cosine with p of at least .025 and adds at least .4 of the projection.

The paper asks for an ablation instead of the last condition, in a prompt that makes the model spell; here rows are what
the store has. The published projection is not taken from the offset, and then hangs on where the origin lies.

The null has the letters of all words shuffled: a probe still finds a direction, and words still fall on its side, but
there is nothing to absorb.

What can go wrong: few words of a letter; dense codes, of which none is silent.

Legend: N words, M latents, D features.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lrh_ray.analyses.sae.sparse_probing import latent_scores, mean_differences

LEAST_GAIN, MOST_MAIN = 0.03, 5
LEAST_COSINE, LEAST_SHARE = 0.025, 0.4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Absorption:
    """Words [N] in which no main latent fires, those of them that are absorbed, and the latent that takes over."""

    missed: np.ndarray
    absorbed: np.ndarray
    latents: np.ndarray


def main_latents(codes: csr_array, labels: np.ndarray) -> np.ndarray:
    """The latents of a letter, as above; empty where no latent fires more on its words than on others."""
    differences = mean_differences(codes, labels)
    order = np.argsort(-differences, kind="stable")[:MOST_MAIN]
    order = order[differences[order] > 0]
    best, kept = -np.inf, 0
    for size in range(1, len(order) + 1):
        found = _f1(latent_scores((codes, labels), codes, order[:size]), labels)
        if found < best + LEAST_GAIN:
            break
        best, kept = found, size
    return np.asarray(order[:kept])


def _f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Of the decision at equal priors: a letter is rare, and at its own rate a probe would say it of no word."""
    positive, rate = labels > 0.5, (labels > 0.5).mean()
    called = scores > np.log(rate / (1 - rate))
    right = (called & positive).sum()
    return float(2 * right / max(1, called.sum() + positive.sum()))


def absorption(
    codes: csr_array, projections: np.ndarray, main: np.ndarray, decoder: np.ndarray, direction: np.ndarray
) -> Absorption:
    """Which words are absorbed: codes [N, M], projections (x - offset) . direction [N], direction [D] of length 1."""
    if not len(projections):
        nothing = np.zeros(0, dtype=bool)
        return Absorption(missed=nothing, absorbed=nothing, latents=np.zeros(0, np.int64))
    along = decoder.astype(np.float64) @ direction
    lengths = np.linalg.norm(decoder.astype(np.float64), axis=1)
    added = csr_array(codes.multiply(along[None, :]))
    top = np.asarray(added.argmax(axis=1)).reshape(-1)
    most = added.max(axis=1).toarray().reshape(-1)
    missed = np.asarray(abs(codes[:, main]).sum(axis=1)).reshape(-1) == 0
    aligned = along[top] >= LEAST_COSINE * lengths[top]
    return Absorption(
        missed=missed,
        absorbed=missed & aligned & (projections > 0) & (most >= LEAST_SHARE * projections),
        latents=top,
    )
