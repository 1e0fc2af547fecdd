"""Autoencoders whose codes are dense while they train: one loop for all, a page of formulas for each.

    training = DenseTraining(Relu(dict(first_weights(4096, mean, seed=0).named()), PowerPenalty(weight=0.1)))
    facts = training.step(rows, rate=1e-4)

An architecture holds its parameters and says two things of a batch: its loss, and what it does after a step (decoder
rows back to unit length, thresholds kept positive). Gradients are autograd's, with the encoder's product of `linear`;
Adam is torch's fused one. Transcoders explain a `target` beside the rows that they read. All is computed on the device
that the parameters are on; files of a checkpoint are the same from any.

What can go wrong: rows that are not finite make a loss that is not; the step says so and leaves all as it was.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.facts import DEAD_AFTER, StepFacts, require_finite, target_of
from lrh_ray.analyses.sae.linear import unit_rows, without_parallel
from lrh_ray.analyses.sae.parameters import OFFSET, AdamRates
from lrh_ray.analyses.sae.parts import mean_of_rows, sum_of_parts
from lrh_ray.analyses.sae.training import of_latents
from lrh_ray.collective import sum_over_workers
from lrh_ray.optimisers import restore_state, state_tensors


class DenseTraining:
    """An autoencoder in training."""

    def __init__(
        self, architecture: Architecture, *, rates: AdamRates | None = None, dead_after: int = DEAD_AFTER
    ) -> None:
        """Take the architecture's parameters over; a step changes them in place.

        Args:
            architecture: What is trained.
            rates: Constants of Adam.
            dead_after: A latent that has not fired for so many rows is told as dead; nothing revives it.
        """
        self.architecture, self._dead_after = architecture, dead_after
        self._shard = architecture.shard
        decoder = architecture.parameters["decoder"]
        self._device = decoder.device
        self.since_fired = torch.zeros(len(decoder), dtype=torch.int64, device=self._device)
        self.steps = 0
        constants = rates or AdamRates()
        self._learning = [name for name in architecture.parameters if name != OFFSET]
        self._adam = torch.optim.Adam(
            [architecture.parameters[name].requires_grad_() for name in self._learning],
            betas=(constants.beta1, constants.beta2),
            eps=constants.epsilon,
            fused=True,
        )

    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D] of the parameters' dtype, to explain `target` [N, D'], or themselves.

        Raises:
            ConfigError: A target of another shape than rows and parameters ask for.
            NotEnoughData: A row is not finite; nothing was changed.
        """
        decoder, share = self.architecture.parameters["decoder"], self.architecture.rows
        aim = target_of(rows, target, decoder.shape[1])
        found = self.architecture.loss(self._here(rows), self.steps, self._here(aim))
        total, square = mean_of_rows(torch.stack([found.total, found.square]).detach(), share).tolist()
        require_finite(total, rows, target, share=share, device=self._device)
        self._adam.zero_grad()
        (found.total / share.world).backward()  # type: ignore[no-untyped-call]
        learning = (self.architecture.parameters[name].grad for name in self._learning)
        sum_over_workers([gradient for gradient in learning if gradient is not None], share)
        if self.architecture.unit_decoder:
            without_parallel(decoder)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        if self.architecture.unit_decoder:
            unit_rows(decoder)
        self.architecture.done(self.steps)
        self.steps += 1
        l0, dead = self._count(found)
        return StepFacts(loss=square, penalty=total - square, l0=l0, dead=dead)

    def _here(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self._device, non_blocking=True)

    def _count(self, found: Loss) -> tuple[float, int]:
        """Codes of a row, and latents that were dead before this batch; then rows since each fired."""
        share, fired = self.architecture.rows, found.codes.detach() > 0
        per_latent = fired.sum(dim=0)
        sum_over_workers([per_latent], share)
        num_rows = len(fired) * share.world
        counts = torch.stack([per_latent.sum(), (self.since_fired >= self._dead_after).sum()])
        self.since_fired += num_rows
        self.since_fired[per_latent > 0] = 0
        codes, dead = sum_of_parts(counts, self.architecture.latents).tolist()
        return codes / num_rows, dead

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The architecture's parameters by name, detached."""
        return {name: tensor.detach() for name, tensor in self.architecture.parameters.items()}

    def tensors(self) -> Mapping[str, Tensor]:
        """All that a resumed run needs of the latents that this worker holds, under names for a file; on the CPU."""
        of_part = {
            **{f"parameter.{name}": tensor.detach() for name, tensor in self.architecture.parameters.items()},
            **{f"adam.{self._named(key)}": tensor for key, tensor in state_tensors(self._adam).items()},
            **{f"own.{name}": tensor for name, tensor in self.architecture.tensors().items()},
            "since_fired": self.since_fired,
            "steps": torch.tensor(self.steps),
        }
        held = of_latents(of_part, self._shard.held_of_part)
        return {name: tensor.cpu() for name, tensor in held.items()}

    def _named(self, key: str) -> str:
        """The optimiser's `NUMBER.moment` as `PARAMETER.moment`."""
        number, _, moment = key.partition(".")
        return f"{self._learning[int(number)]}.{moment}"

    def _numbered(self, key: str) -> str:
        name, _, moment = key.partition(".")
        return f"{self._learning.index(name)}.{moment}"

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors` of all latents."""
        own = of_latents(tensors, self._shard.part)
        for name, tensor in self.architecture.parameters.items():
            tensor.copy_(own[f"parameter.{name}"])
        restore_state(self._adam, {self._numbered(key): value for key, value in _without("adam.", own).items()})
        self.architecture.load(_without("own.", own))
        self.since_fired.copy_(own["since_fired"])
        self.steps = int(tensors["steps"])


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
