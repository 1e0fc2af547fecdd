"""Penalties on codes: the sum of their p-th powers, with p and weight that change in the course of a run.

    penalty = PowerPenalty(weight=0.1, last_p=0.2, from_step=10_000, to_step=20_000)
    term = penalty(codes, step)                     weight * mean over rows of sum z^p, differentiable
    penalty.done(step)                              after the step

p = 1 is the L1 penalty. Annealing (Karvonen et al. 2024, arXiv 2408.00113) lowers p in `changes` equal parts, so that
the penalty comes nearer to counting codes without the shrinkage of L1. When p changes, the weight is multiplied by
mean(sum z^p) / mean(sum z^p') over the last `memory` steps, so that the term as a whole goes on as it was.

The weight rises from 0 over `warmup` steps. Below `FLOOR` a power has no slope: that of z^p at 0 is infinite.

What can go wrong: the state is part of the run; `tensors` and `load` carry it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parts import mean_of_rows, sum_of_parts

FLOOR = 1e-6


@dataclass(kw_only=True, slots=True)
class PowerPenalty:
    """weight_t * mean over rows of sum z^(p_t)."""

    weight: float
    last_p: float = 1.0
    from_step: int = 0
    to_step: int = 0
    changes: int = 10
    memory: int = 10
    warmup: int = 0
    mesh: Mesh = ALONE
    factor: float = field(default=1.0, init=False)
    """What annealing has made of the weight."""
    sums: Tensor = field(init=False)
    """Mean sums of z^p, and of z to the p that comes next, in the last steps at this p [memory, 2]; NaN before."""

    def __post_init__(self) -> None:
        self.sums = torch.full((self.memory, 2), torch.nan, dtype=torch.float64)

    def power(self, step: int) -> float:
        """The p of a step."""
        return self._level(self._changes_at(step))

    def __call__(self, codes: Tensor, step: int) -> Tensor:
        """The term of the loss at this step."""
        level = self._changes_at(step)
        powers = self._mean_power(codes, self._level(level))
        if level < self.changes and self.last_p != 1:
            with torch.no_grad():
                coming = self._mean_power(codes, self._level(self._changes_after(level)))
                self.sums[step % self.memory] = torch.stack([powers, coming]).to(self.sums)
        return self.weight_at(step) * powers

    def weight_at(self, step: int) -> float:
        """The weight of a step: warmed up, and as annealing has made it."""
        rising = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.weight * self.factor * rising

    def done(self, step: int) -> None:
        """Rescale the weight if p changes after this step."""
        if self.power(step) != self.power(step + 1):
            now, coming = self.sums.nanmean(dim=0).tolist()
            self.factor *= now / coming if coming > 0 else 1.0
            self.sums.fill_(torch.nan)

    def _changes_at(self, step: int) -> int:
        """How many changes of p there have been."""
        if step < self.from_step:
            return 0
        length = max(1, self.to_step - self.from_step)
        return min(self.changes, 1 + (step - self.from_step) * self.changes // length)

    def _changes_after(self, level: int) -> int:
        """How many there have been after the next one: a run of fewer steps than changes makes several at once."""
        length = max(1, self.to_step - self.from_step)
        return self._changes_at(self.from_step + -(-level * length // self.changes))

    def _level(self, changes: int) -> float:
        return 1 - (1 - self.last_p) * changes / self.changes

    def tensors(self) -> Mapping[str, Tensor]:
        """What a resumed run needs."""
        return {"factor": torch.tensor(self.factor, dtype=torch.float64), "sums": self.sums}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Back from `tensors`."""
        self.factor, self.sums = float(tensors["factor"]), tensors["sums"].clone()

    def _mean_power(self, codes: Tensor, p: float) -> Tensor:
        powers = codes if p == 1 else torch.where(codes > 0, codes.clamp_min(FLOOR).pow(p), torch.zeros_like(codes))
        return mean_of_rows(sum_of_parts(powers.sum(dim=1).mean(), self.mesh.latents), self.mesh.rows)
