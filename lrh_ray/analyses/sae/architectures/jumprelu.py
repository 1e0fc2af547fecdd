"""JumpReLU codes: a threshold of its own for every latent (Rajamanoharan et al. 2024, arXiv 2407.14435).

    z = a [a > theta],  a = encoder (x - b) + c,  theta = exp(log_threshold) > 0

The jump has no slope in theta. That of the expected loss is estimated by the rows near the threshold: with K the
rectangle of width 1 and bandwidth h,

    dz / dtheta = -(theta / h) K((a - theta) / h)          d[a > theta] / dtheta = -(1 / h) K((a - theta) / h)

| penalty | what is added to the squared error | source |
|---|---|---|
| `step` | w E sum [a > theta] | the paper |
| `quadratic` | w (L0 / target - 1)^2, L0 the mean number of codes of a row | Gemma Scope 2 |
| `tanh` | w E sum tanh(scale z) | Anthropic, Circuits Updates, January 2025; decoder rows have length 1 |

What can go wrong: with too small a bandwidth no row is near a threshold and none of them moves; with rows of another
scale than about 1 a feature, bandwidth and first threshold (both .001 in the paper) must be scaled with them.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parts import mean_of_rows, sum_of_parts

JumpPenalty = Literal["step", "quadratic", "tanh"]


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth  # type: ignore[attr-defined]
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors  # type: ignore[attr-defined]
        near = _rectangle(pre, theta, ctx.bandwidth)  # type: ignore[attr-defined]
        return gradient * (pre > theta), -theta * (gradient * near).sum(dim=0), None


class _Fires(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth  # type: ignore[attr-defined]
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[None, Tensor, None]:
        pre, theta = ctx.saved_tensors  # type: ignore[attr-defined]
        near = _rectangle(pre, theta, ctx.bandwidth)  # type: ignore[attr-defined]
        return None, -(gradient * near).sum(dim=0), None


def _rectangle(pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """K((pre - theta) / h) / h."""
    return ((pre - theta).abs() < bandwidth / 2).to(pre.dtype) / bandwidth


class JumpRelu(Architecture):
    """Thresholded codes under one of three penalties."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        weight: float,
        penalty: JumpPenalty = "step",
        target: float = 32.0,
        scale: float = 4.0,
        bandwidth: float = 1e-3,
        first_threshold: float = 1e-3,
        warmup: int = 0,
        widths: tuple[int, ...] = (),
        mesh: Mesh = ALONE,
    ) -> None:
        """Parameters `encoder`, `encoder_bias`, `decoder`, `decoder_bias`, and `log_threshold`, which else begins here.

        Args:
            parameters: As they begin; `log_threshold` [M] may be left out.
            weight: Of the penalty, reached after `warmup` steps.
            penalty: One of the table above.
            target: L0 that `quadratic` aims at.
            scale: Of codes in `tanh`.
            bandwidth: Width of the rectangle, in the unit of pre-activations.
            first_threshold: Of every latent.
            warmup: Steps over which the weight rises from 0.
            widths: Of several sites side by side in decoder rows; none of one. `tanh` then counts their lengths.
            mesh: This worker's place among all.
        """
        own = dict(parameters)
        own.setdefault("log_threshold", torch.full_like(own["encoder_bias"], first_threshold).log())
        super().__init__(own, widths=widths, mesh=mesh)
        self._weight, self._kind, self._target, self._scale = weight, penalty, target, scale
        self._bandwidth, self._warmup = bandwidth, warmup

    def _pre(self, rows: Tensor) -> Tensor:
        own = self.parameters
        return encode(rows, own["encoder"], own["encoder_bias"], self.offset())

    def codes(self, rows: Tensor) -> Tensor:
        """Pre-activations above their threshold."""
        return self._jump(self._pre(rows))

    def _jump(self, pre: Tensor) -> Tensor:
        codes: Tensor = _Jump.apply(pre, self.parameters["log_threshold"].exp(), self._bandwidth)  # type: ignore[no-untyped-call]
        return codes

    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:
        """Squared error and penalty."""
        pre = self._pre(rows)
        codes = self._jump(pre)
        square = self.square(target, rows, codes)
        rising = min(1.0, (step + 1) / self._warmup) if self._warmup else 1.0
        return Loss(total=square + rising * self._weight * self._of_codes(pre, codes), square=square, codes=codes)

    def _of_codes(self, pre: Tensor, codes: Tensor) -> Tensor:
        if self._kind == "tanh":
            return sum_of_parts(torch.tanh(self._scale * self.weighed(codes)).sum(dim=1).mean(), self.latents)
        theta = self.parameters["log_threshold"].exp()
        fires: Tensor = _Fires.apply(pre, theta, self._bandwidth)  # type: ignore[no-untyped-call]
        l0 = mean_of_rows(sum_of_parts(fires.sum(dim=1).mean(), self.latents), self.rows)
        return l0 if self._kind == "step" else (l0 / self._target - 1).square()
