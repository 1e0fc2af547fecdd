"""What a training step found, and the check that it may be believed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.mesh import ONE
from lrh_ray.collective import Share, sum_over_workers
from lrh_ray.errors import ConfigError, NotEnoughData

DEAD_AFTER = 10_000_000
"""Rows without firing after which a latent is dead, where nothing else is said (Gao et al. 2024)."""


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
    """Latents that had not fired for `dead_after` rows when the batch came."""


def require_finite(
    loss: float,
    rows: np.ndarray,
    target: np.ndarray | None = None,
    *,
    share: Share = ONE,
    device: torch.device | None = None,
) -> None:
    """Refuse a batch whose loss is not finite, or rows that are read and not explained, which a loss may not show.

    Of several workers that share the rows all refuse, or none; `device` is where their sums are made, None on the CPU.

    Raises:
        NotEnoughData: With the rows that are to blame, or none of them.
    """
    if np.isfinite(loss) and target is None:
        return
    num = (_spoilt(rows) if target is None else _spoilt(rows) | _spoilt(target)).sum().to(device=device)
    sum_over_workers([num], share)
    if np.isfinite(loss) and not num:
        return
    cause = "" if num else ", but the loss outgrew its number format: lower the rate"
    raise NotEnoughData(f"{int(num)} of the {len(rows) * share.world} rows of a batch are not finite{cause}.")


def _spoilt(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(~np.isfinite(rows).all(axis=1))


def target_of(rows: np.ndarray, target: np.ndarray | None, width: int) -> np.ndarray:
    """What codes of `rows` [N, D] are to explain: `target` [N, D'], or the rows themselves.

    Raises:
        ConfigError: Another number of rows, or another width than D'.
    """
    found = rows if target is None else target
    if found.shape != (len(rows), width):
        raise ConfigError(
            f"Rows to explain are {list(found.shape)}; beside {len(rows)} rows to read they are {[len(rows), width]}."
        )
    return found
