"""What a training step found, and the check that it may be believed."""

from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.sae.mesh import ONE
from lrh_ray.collective import Share, sum_over_workers
from lrh_ray.errors import NotEnoughData


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFacts:
    """Numbers of a batch before its step; losses per row, in the square of the rows' own unit."""

    loss: float
    """Squared error of the reconstruction; of nested ones their mean."""
    penalty: float
    """What is added to it: the penalty of the codes, or the weighted squared error of what the dead explain."""
    l0: float
    """Codes of a row, on average."""
    dead: int
    """Latents that count as dead."""


def require_finite(loss: float, rows: np.ndarray, share: Share = ONE) -> None:
    """Refuse a batch whose loss is not finite; of several workers that share its rows all do, or none.

    Raises:
        NotEnoughData: With the rows that are to blame, or none of them.
    """
    if np.isfinite(loss):
        return
    bad = torch.from_numpy(~np.isfinite(rows).all(axis=1)).sum()
    sum_over_workers([bad], share)
    cause = "" if bad else ", but the loss outgrew its number format: lower the rate"
    raise NotEnoughData(f"{int(bad)} of the {len(rows) * share.world} rows of a batch are not finite{cause}.")
