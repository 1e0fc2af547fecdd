"""Concept component analysis: normalised linear codes under a softplus penalty (Liu et al. 2026, arXiv 2601.20420).

    z = norm(encoder x + c)          no ReLU: a code is a log-posterior, up to a constant, and may be negative
    loss = |x - x^|^2 + w sum softplus(z)

| norm | of what, at each row |
|---|---|
| `layer` | all latents |
| `group` | each of `groups` equal parts of the latents |
| `batch` | each latent over the rows of a batch; afterwards over what a moving average has seen |

A code is read as z or, where the paper compares it with a probability, as exp z. Every latent says something of every
row, so that L0 means nothing here and no latent is dead; the report leaves both out.

What can go wrong: `batch` makes a row's code depend on its batch while it trains.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.analyses.sae.parts import mean_between, sum_between, sum_of_parts
from lrh_ray.errors import ConfigError

Norm = Literal["layer", "group", "batch"]
EPSILON = 1e-5
MOMENTUM = 0.99


class ConCA(Architecture):
    """Normalised linear codes under a softplus penalty; the decoder is free."""

    unit_decoder = False

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        weight: float = 1e-4,
        norm: Norm = "layer",
        groups: int = 4,
        mesh: Mesh = ALONE,
    ) -> None:
        """Parameters `encoder`, `encoder_bias`, `decoder`, `decoder_bias`.

        Raises:
            ConfigError: Latents that cannot be cut into so many equal groups, or groups that workers would divide.
        """
        super().__init__(parameters, mesh=mesh)
        parts = self.latents.world
        num_latents = len(parameters["encoder"])
        if norm == "group" and groups % parts:
            raise ConfigError(f"groups is {groups!r}; {parts} workers hold whole groups only if it is a multiple.")
        if norm == "group" and num_latents % groups:
            raise ConfigError(f"groups is {groups!r}; {num_latents} latents cannot be cut into so many equal parts.")
        self._weight, self._norm, self._groups = weight, norm, groups // parts
        bias = self.parameters["encoder_bias"].detach()
        self._mean, self._variance = torch.zeros_like(bias), torch.ones_like(bias)

    def _pre(self, rows: Tensor) -> Tensor:
        own = self.parameters
        offset = own.get(OFFSET, torch.zeros_like(own["encoder"][0]))
        return encode(rows, own["encoder"], own["encoder_bias"], offset)

    def _normed(self, pre: Tensor) -> Tensor:
        if self._norm == "group":
            return functional.group_norm(pre, self._groups, eps=EPSILON)
        num = pre.shape[1] * self.latents.world
        centred = pre - sum_between(pre.sum(dim=1, keepdim=True), self.latents) / num
        variance = sum_between(centred.square().sum(dim=1, keepdim=True), self.latents) / num
        return centred / (variance + EPSILON).sqrt()

    def codes(self, rows: Tensor) -> Tensor:
        """Normalised codes; `batch` normalises by what training has seen."""
        pre = self._pre(rows)
        if self._norm == "batch":
            return (pre - self._mean) / (self._variance + EPSILON).sqrt()
        return self._normed(pre)

    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:  # noqa: ARG002  # the same at every step
        """Squared error and penalty."""
        pre = self._pre(rows)
        if self._norm == "batch":
            mean = mean_between(pre.mean(dim=0), self.rows)
            variance = mean_between((pre - mean).square().mean(dim=0), self.rows)
            codes = (pre - mean) / (variance + EPSILON).sqrt()
            self._mean.lerp_(mean.detach(), 1 - MOMENTUM)
            self._variance.lerp_(variance.detach(), 1 - MOMENTUM)
        else:
            codes = self._normed(pre)
        square = self.square(target, rows, codes)
        penalty = self._weight * sum_of_parts(functional.softplus(codes).sum(dim=1).mean(), self.latents)
        return Loss(total=square + penalty, square=square, codes=codes)

    def tensors(self) -> Mapping[str, Tensor]:
        """What training has seen of each latent."""
        return {"mean": self._mean, "variance": self._variance}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Back from `tensors`."""
        self._mean.copy_(tensors["mean"])
        self._variance.copy_(tensors["variance"])
