"""Concept component analysis: normalised linear codes under a softplus penalty (Liu et al. 2026, arXiv 2601.20420).

    z = norm(encoder x + c)          no ReLU: a code is a log-posterior, up to a constant, and may be negative
    loss = |x - x^|^2 + w sum softplus(z)

| norm | of what, at each row |
|---|---|
| `layer` | all latents |
| `group` | each of `groups` equal parts of the latents |
| `batch` | each latent over the rows of a batch |
| `none` | nothing: codes are what the encoder makes |

What `batch` has trained is read with the moments of all training rows (`CodeMoments`), which then are part of the
encoder: no code depends on its company any more, and none on averages that follow the last weights with a delay.

A code is read as z or, where the paper compares it with a probability, as exp z. Every latent says something of every
row, so that L0 means nothing here and no latent is dead; the report leaves both out.

What can go wrong: `batch` makes a row's code depend on its batch while it trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.analyses.sae.parts import mean_between, sum_between, sum_of_parts
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Rows

Norm = Literal["layer", "group", "batch", "none"]
EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CodeMoments:
    """Mean of each code over some rows [M], and its squared deviations summed [M]; merged as Chan et al. (1983) do."""

    rows: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, rows: Rows, reader: Reader) -> "CodeMoments":
        """Those of rows [N, D]; 2 N D M FLOP."""
        found = [cls._of_codes(codes.astype(np.float64)) for _, codes in codes_by_tile(reader, rows)]
        whole = found[0]
        for one in found[1:]:
            whole = whole.merge(one)
        return whole

    @classmethod
    def _of_codes(cls, codes: np.ndarray) -> "CodeMoments":
        mean = codes.mean(axis=0) if len(codes) else np.zeros(codes.shape[1])
        return cls(rows=len(codes), mean=mean, squares=((codes - mean) ** 2).sum(axis=0))

    def merge(self, other: "CodeMoments") -> "CodeMoments":
        rows, apart = self.rows + other.rows, other.mean - self.mean
        share = other.rows / max(rows, 1)
        squares = self.squares + other.squares + apart**2 * self.rows * share
        return CodeMoments(rows=rows, mean=self.mean + apart * share, squares=squares)


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

    def _pre(self, rows: Tensor) -> Tensor:
        own = self.parameters
        offset = own.get(OFFSET, torch.zeros_like(own["encoder"][0]))
        return encode(rows, own["encoder"], own["encoder_bias"], offset)

    def _normed(self, pre: Tensor) -> Tensor:
        if self._norm == "none":
            return pre
        if self._norm == "group":
            return functional.group_norm(pre, self._groups, eps=EPSILON)
        if self._norm == "batch":
            centred = pre - mean_between(pre.mean(dim=0), self.rows)
            return centred / (mean_between(centred.square().mean(dim=0), self.rows) + EPSILON).sqrt()
        num = pre.shape[1] * self.latents.world
        centred = pre - sum_between(pre.sum(dim=1, keepdim=True), self.latents) / num
        variance = sum_between(centred.square().sum(dim=1, keepdim=True), self.latents) / num
        return centred / (variance + EPSILON).sqrt()

    def codes(self, rows: Tensor) -> Tensor:
        """Normalised codes, with `batch` over these rows."""
        return self._normed(self._pre(rows))

    def read_with(self, moments: CodeMoments) -> "ConCA":
        """Codes are those of the encoder, less their mean, in units of their spread; the encoder takes both up."""
        mean, variance = (torch.from_numpy(one) for one in (moments.mean, moments.squares / max(moments.rows, 1)))
        spread = (variance + EPSILON).sqrt()
        own = {name: tensor.detach() for name, tensor in self.parameters.items()}
        own["encoder"] = (own["encoder"] / spread[:, None]).to(own["encoder"].dtype)
        own["encoder_bias"] = ((own["encoder_bias"] - mean) / spread).to(own["encoder_bias"].dtype)
        return ConCA(own, norm="none")

    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:  # noqa: ARG002  # the same at every step
        """Squared error and penalty."""
        codes = self.codes(rows)
        square = self.square(target, rows, codes)
        penalty = self._weight * sum_of_parts(functional.softplus(codes).sum(dim=1).mean(), self.latents)
        return Loss(total=square + penalty, square=square, codes=codes)
