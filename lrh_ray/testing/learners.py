"""A small real learner for the verb `train`: least squares by gradient steps, on a worker that may die or refuse."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from lrh_ray.collective import Share, sum_over_workers
from lrh_ray.errors import NotEnoughData

Mishap: TypeAlias = Literal["none", "dies once", "dies always", "refuses"]
WIDTH, BATCH = 8, 32


@dataclass(frozen=True, kw_only=True)
class SlopeTask:
    """Opens a `SlopeLearner` on every worker; each leaves a file in `folder` when it is opened."""

    folder: Path
    mishap: Mishap = "none"
    at_step: int = 5

    def open(self, share: Share, device: torch.device) -> "SlopeLearner":
        (self.folder / f"opened-{share.rank}-{os.getpid()}").touch()
        return SlopeLearner(self, share, device)


class SlopeLearner:
    """Momentum steps on a quadratic whose batches are a pure function of the step."""

    def __init__(self, task: SlopeTask, share: Share, device: torch.device) -> None:
        self._task, self._share, self._device = task, share, device
        self._weights = torch.zeros(WIDTH, dtype=torch.float64, device=device)
        self._velocity = torch.zeros_like(self._weights)

    def step(self, step: int) -> Mapping[str, float]:
        if step == self._task.at_step and self._share.rank == self._share.world - 1:
            self._misbehave()
        noise = torch.Generator().manual_seed(step)
        x = torch.randn(BATCH, WIDTH, generator=noise, dtype=torch.float64).to(self._device)
        y = x.sum(dim=1)
        own = self._share.of(BATCH)
        error = x[own] @ self._weights - y[own]
        gradient, loss = x[own].T @ error / BATCH, (error**2).sum().reshape(1) / BATCH
        sum_over_workers([gradient, loss], self._share)
        self._velocity = 0.9 * self._velocity - 0.05 * gradient
        self._weights = self._weights + self._velocity
        return {"loss": loss.item()}

    def save(self, folder: Path) -> None:
        state = {"weights": self._weights.tolist(), "velocity": self._velocity.tolist()}
        (folder / "state.json").write_text(json.dumps(state), encoding="ascii")

    def load(self, folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text(encoding="ascii"))
        self._weights = torch.tensor(state["weights"], dtype=torch.float64, device=self._device)
        self._velocity = torch.tensor(state["velocity"], dtype=torch.float64, device=self._device)

    def _misbehave(self) -> None:
        mishap, mark = self._task.mishap, self._task.folder / "died"
        if mishap == "refuses":
            raise NotEnoughData("the batch of this step is empty; give more rows")
        if mishap == "dies always" or (mishap == "dies once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
