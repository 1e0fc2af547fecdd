"""Targeted probe perturbation: do the latents chosen for a concept carry it, and it alone?

From SAEBench (Karvonen et al. 2025, arXiv 2503.09532):

    chosen = strongest(effects(differences, decoder, probe), 20)     # latents of one concept
    less = parts(codes, chosen, decoder, probes)                     # [N, C] what they add to each probe's score
    found = selectivity(drops)                                       # drop of its probe less that of the others

A probe for each concept is fitted to rows as they are. The latents of concept i are those with the largest effect on
its probe,

    e_d = max(0, E[z_d | i] - E[z_d | not i]) (decoder_d . w_i)

They are taken out, and the probes read what is left. Scores are linear in codes: what latents D add to the score of
probe j is sum over D of z_d (decoder_d . w_j), and no row is decoded. With the error kept it is taken from the row
itself, as published; without, from the reconstruction.

    drop[i, j] = accuracy of probe j before - after the latents of i are out
    selectivity = mean over i of drop[i, i] - mean over i and j != i of drop[i, j]

The null takes as many random latents out; 0 is expected. The ceiling takes the probe's own direction w_i out of the
rows: its probe then knows nothing (a drop to one half), and the others lose what they share with it.

What can go wrong: concepts that mean nearly the same lose together, with any latents; one concept has no others.

Legend: N rows, M latents, C concepts, B draws of documents.
"""

import numpy as np
from scipy.sparse import csr_array

from lrh_ray.analyses.metrics import mean_over_documents


def effects(differences: np.ndarray, decoder: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """How much of a probe's difference between the classes each latent makes [M]; `probe` [D], `decoder` [M, D]."""
    return np.asarray(np.maximum(differences, 0.0) * (decoder.astype(np.float64) @ probe))


def strongest(found: np.ndarray, size: int) -> np.ndarray:
    """At most `size` latents of the largest effects above 0."""
    order = np.argsort(-found, kind="stable")[:size]
    return np.asarray(order[found[order] > 0])


def parts(codes: csr_array, latents: np.ndarray, decoder: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """What latents add to the scores [N, C] of probes [D, C] on rows with these codes [N, M]."""
    return np.asarray(codes[:, latents] @ (decoder[latents].astype(np.float64) @ probes))


def reconstructed(codes: csr_array, decoder: np.ndarray, offset: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Scores [N, C], without intercepts, of probes [D, C] on what codes [N, M] stand for."""
    return np.asarray(codes @ (decoder.astype(np.float64) @ probes) + offset @ probes)


def erased_parts(scores: np.ndarray, own: int, probes: np.ndarray) -> np.ndarray:
    """What the direction of probe `own` adds to all scores [N, C], given centred scores w . (x - mean) [N] of it."""
    direction = probes[:, own]
    return np.asarray(np.outer(scores, direction @ probes / (direction @ direction)))


def accuracies(scores: np.ndarray, labels: np.ndarray, documents: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of rows [B, K] on the right side of 0, for weights [B, S] of documents; scores [N, K], labels [N]."""
    correct = (scores > 0) == (labels > 0.5)[:, None]
    return mean_over_documents(correct, np.ones((len(labels), 1), dtype=bool), documents, weights)


def selectivity(drops: np.ndarray) -> np.ndarray:
    """[B]: drops [B, C, C] of the own probe (the diagonal) less those of the others, each meaned."""
    num = drops.shape[1]
    own = np.einsum("bii->b", drops) / num
    return np.asarray(own - (drops.sum(axis=(1, 2)) - own * num) / (num * (num - 1)))
