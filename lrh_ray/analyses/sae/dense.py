"""Autoencoders whose codes are dense while they train: one loop for all, a page of formulas for each.

    training = DenseTraining(Relu(dict(first_weights(4096, mean, seed=0).named()), PowerPenalty(weight=0.1)))
    facts = training.step(rows, rate=1e-4)

An architecture holds its parameters and says two things of a batch: its loss, and what it does after a step (decoder
rows back to unit length, thresholds kept positive). Gradients are autograd's, with the encoder's product of `linear`;
Adam is torch's fused one.

What can go wrong: rows that are not finite make a loss that is not; the step says so and leaves all as it was.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.facts import StepFacts, require_finite
from lrh_ray.analyses.sae.linear import unit_rows, without_parallel
from lrh_ray.analyses.sae.parameters import AdamRates
from lrh_ray.optimisers import restore_state, state_tensors


class DenseTraining:
    """An autoencoder in training."""

    def __init__(self, architecture: Architecture, *, rates: AdamRates | None = None) -> None:
        """Take the architecture's parameters over; a step changes them in place."""
        self.architecture = architecture
        self.since_fired = np.zeros(len(architecture.parameters["decoder"]), dtype=np.int64)
        self.steps = 0
        own = rates or AdamRates()
        self._parameters = [tensor.requires_grad_() for tensor in architecture.parameters.values()]
        self._adam = torch.optim.Adam(self._parameters, betas=(own.beta1, own.beta2), eps=own.epsilon, fused=True)

    def step(self, rows: np.ndarray, *, rate: float) -> StepFacts:
        """Make one step on rows [N, D] of the parameters' dtype.

        Raises:
            NotEnoughData: A row is not finite; nothing was changed.
        """
        found = self.architecture.loss(torch.from_numpy(rows), self.steps)
        require_finite(found.total.item(), rows)
        self._adam.zero_grad()
        found.total.backward()  # type: ignore[no-untyped-call]
        decoder = self.architecture.parameters["decoder"]
        if self.architecture.unit_decoder:
            without_parallel(decoder)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        if self.architecture.unit_decoder:
            unit_rows(decoder)
        self.architecture.done(self.steps)
        self.steps += 1
        return self._facts(found)

    def _facts(self, found: Loss) -> StepFacts:
        fired = found.codes.detach() > 0
        self.since_fired += len(fired)
        self.since_fired[fired.any(dim=0).numpy()] = 0
        return StepFacts(
            loss=found.square.item(),
            penalty=(found.total - found.square).item(),
            l0=fired.sum().item() / len(fired),
            dead=int((self.since_fired > 0).sum()),
        )

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The architecture's parameters by name, detached."""
        return {name: tensor.detach() for name, tensor in self.architecture.parameters.items()}

    def tensors(self) -> Mapping[str, Tensor]:
        """All that a resumed run needs, under names for a file."""
        return {
            **{f"parameter.{name}": tensor.detach() for name, tensor in self.architecture.parameters.items()},
            **{f"adam.{name}": tensor for name, tensor in state_tensors(self._adam).items()},
            **{f"own.{name}": tensor for name, tensor in self.architecture.tensors().items()},
            "since_fired": torch.from_numpy(self.since_fired),
            "steps": torch.tensor(self.steps),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        for name, tensor in self.architecture.parameters.items():
            tensor.copy_(tensors[f"parameter.{name}"])
        restore_state(self._adam, _without("adam.", tensors))
        self.architecture.load(_without("own.", tensors))
        self.since_fired[:] = tensors["since_fired"].numpy()
        self.steps = int(tensors["steps"])


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
