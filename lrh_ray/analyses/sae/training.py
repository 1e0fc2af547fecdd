"""What a loop asks of an autoencoder in training, whatever it is made of."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.facts import StepFacts
from lrh_ray.analyses.sae.parameters import OF_ALL


@runtime_checkable
class Training(Protocol):
    """Weights that change step by step, and all that a resumed run needs to make the same steps."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The weights as they are, under names for a file."""

    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D], of which codes are made, and `target` [N, D'], which they explain.

        No target: the rows themselves.

        Raises:
            NotEnoughData: A row is not finite; nothing was changed.
        """

    def tensors(self) -> Mapping[str, Tensor]:
        """All that a resumed run needs of this worker's latents, under names for a file."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `joined` tensors of all workers, on any number of them."""


@runtime_checkable
class Choosing(Training, Protocol):
    """A training whose codes are chosen, perhaps among candidates that a rough product finds."""

    def recall(self, rows: np.ndarray) -> float:
        """Share of the exact codes of all workers' rows [N, D] that a step would choose; 1 without a preselection."""


def belongs_to_all(name: str) -> bool:
    """Whether a tensor of this name is the same on every worker; all others have a row for each latent."""
    return any(one in name for one in OF_ALL) or name in ("steps", "own.factor", "own.sums") or name.endswith(".step")


def of_latents(tensors: Mapping[str, Tensor], latents: slice) -> dict[str, Tensor]:
    """Of some latents; what belongs to all of them stays whole."""
    return {name: tensor if belongs_to_all(name) else tensor[latents] for name, tensor in tensors.items()}


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """`Training.tensors` of all workers, in order, as one worker would have them."""
    return {
        name: tensor if belongs_to_all(name) else torch.cat([part[name] for part in parts])
        for name, tensor in parts[0].items()
    }
