"""How often latents fire before any training, and how many never would: from the rows' covariance and first weights.

    spread = pre_activation_spread(encoder, covariance)        # [M], of rows in the unit of training
    prior = firing_prior(spread, k=32)                         # [M] share of rows
    expected_dead(prior, rows=100_000)                         # share of latents that fire in none of so many rows

First weights have no bias and take the mean from the rows, so a pre-activation has mean 0 and variance e Sigma e. Were
rows Gaussian and one threshold t the same for all, a latent of standard deviation s would fire in a share Phi(-t / s)
of them, and t is where these shares add up to k. Where few directions have most of the variance, latents across them
start as good as dead, however long one waits: one pass over the rows says so, before a batch is read.

What can go wrong: rows with heavier tails let more latents fire, rows of a document, which are alike, fewer. The k
largest of each row are not those above one threshold: a loud row has k codes too, not more.
"""

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

TILE = 4096
FAR = 40.0
"""Standard deviations beyond which no float64 tells a probability from 0."""


def pre_activation_spread(encoder: Tensor, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations [M] of encoder [M, D] rows . x for x of this covariance [D, D]; 2 M D^2 FLOP in float32."""
    sigma = torch.from_numpy(covariance.astype(np.float32))
    tiles = (encoder[first : first + TILE] for first in range(0, len(encoder), TILE))
    variances = torch.cat([((own @ sigma) * own).sum(dim=1) for own in tiles])
    return np.asarray(variances.clamp(min=0).double().sqrt().numpy())


def firing_prior(spread: np.ndarray, k: float) -> np.ndarray:
    """Share [M] of rows in which each latent is above the threshold that gives k codes a row."""
    varied = np.where(spread > 0, spread, np.finfo(np.float64).tiny)

    def shares(threshold: float) -> np.ndarray:
        return np.asarray(np.where(spread > 0, ndtr(-threshold / varied), 0.0))

    if shares(0.0).sum() <= k:
        return shares(0.0)
    found = brentq(lambda threshold: shares(threshold).sum() - k, 0.0, FAR * spread.max())
    return shares(float(found))


def expected_dead(prior: np.ndarray, rows: int) -> float:
    """Share of latents that fire in none of so many independent rows."""
    return float(((1 - prior) ** rows).mean())
