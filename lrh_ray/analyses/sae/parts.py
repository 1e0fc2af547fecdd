"""Sums over workers that autograd can go through, for latents that are shared out.

Every worker has some latents and all rows. A *part* differs between workers, and what all parts add up to is *whole*:
the same on every worker, as is everything that is computed from it, the loss above all. Then

    sum_of_parts(part)        whole, the sum           its gradient is whole, and that of every part the same
    used_in_parts(whole)      the same                 each part's gradient is a part: the gradient is their sum
    sum_between(part)         whole, the sum           used for parts again: both ways a sum

    rebuilt = sum_of_parts(codes @ decoder, share) + bias        # own codes, own decoder rows
    pre = encode(rows, encoder, encoder_bias, used_in_parts(bias, share))

With one worker all three are their argument.
"""

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx

from lrh_ray.collective import Share


def _sum(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone().contiguous()
    distributed.all_reduce(total)
    return total


class _SumOfParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, part: Tensor) -> Tensor:  # noqa: ARG004  # torch wants the name
        return _sum(part)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient


class _UsedInParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, whole: Tensor) -> Tensor:  # noqa: ARG004
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(gradient)


class _SumBetween(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, part: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(part)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(gradient)


def sum_of_parts(part: Tensor, share: Share) -> Tensor:
    """The sum over workers, whose gradient is whole."""
    return part if share.world == 1 else _SumOfParts.apply(part)  # type: ignore[no-untyped-call]


def used_in_parts(whole: Tensor, share: Share) -> Tensor:
    """What every worker has, on its way into parts."""
    return whole if share.world == 1 else _UsedInParts.apply(whole)  # type: ignore[no-untyped-call]


def sum_between(part: Tensor, share: Share) -> Tensor:
    """The sum over workers, on its way into parts again."""
    return part if share.world == 1 else _SumBetween.apply(part)  # type: ignore[no-untyped-call]
