"""At which sites a latent of a crosscoder is: lengths of its decoder row's parts, and whether one site has it alone.

    norms = site_norms(decoder, (576, 576))            # [M, S], of decoder rows [M, D'] of training
    places = sites_of_latents(norms)                   # [M] the site that has a latent alone, or SHARED

Training divides every site by its own scale and holds whole decoder rows at length 1, so that squared lengths of the
parts of a row are shares that add up to 1. A latent is *specific* to a site that has nine tenths of it, three times the
length of all others together, and *shared* else.

What can go wrong: a penalty on the sum of lengths makes latents specific that are not (Minder et al. 2025, arXiv
2504.02922); TopK kinds have no such penalty. Directions that are never used stay shared, as they began: count only
latents that fire.
"""

import numpy as np
import torch
from torch import Tensor

SHARED = -1
SPECIFIC = 0.9
"""Of a decoder row's squared length."""


def site_norms(decoder: Tensor, widths: tuple[int, ...]) -> Tensor:
    """Lengths [M, S] of the parts of decoder rows [M, D'] that belong to sites of `widths`, side by side."""
    parts = decoder.split(list(widths), dim=1)  # type: ignore[no-untyped-call]
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts], dim=1)


def sites_of_latents(norms: np.ndarray) -> np.ndarray:
    """Number of the site that a latent is specific to [M], or `SHARED`; from `site_norms` [M, S]."""
    shares = norms**2 / (norms**2).sum(axis=1, keepdims=True)
    return np.where(shares.max(axis=1) >= SPECIFIC, shares.argmax(axis=1), SHARED)
