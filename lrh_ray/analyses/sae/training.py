"""What a loop asks of an autoencoder in training, whatever it is made of."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from lrh_ray.analyses.sae.facts import StepFacts


@runtime_checkable
class Training(Protocol):
    """Weights that change step by step, and all that a resumed run needs to make the same steps."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The weights as they are, under names for a file."""

    def step(self, rows: np.ndarray, *, rate: float) -> StepFacts:
        """Make one step on rows [N, D].

        Raises:
            NotEnoughData: A row is not finite; nothing was changed.
        """

    def tensors(self) -> Mapping[str, Tensor]:
        """All that a resumed run needs, under names for a file."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
