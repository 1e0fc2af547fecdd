"""Sums and means over workers that autograd can go through, for latents and rows that are shared out.

Latents: every worker has some latents and all rows. A *part* differs between workers, and what all parts add up to is
*whole*: the same on every worker, as is everything that is computed from it, the loss above all. Then

    sum_of_parts(part)        whole, the sum           its gradient is whole, and that of every part the same
    used_in_parts(whole)      the same                 each part's gradient is a part: the gradient is their sum
    sum_between(part)         whole, the sum           used for parts again: both ways a sum

    rebuilt = sum_of_parts(codes @ decoder, share) + bias        # own codes, own decoder rows
    pre = encode(rows, encoder, encoder_bias, used_in_parts(bias, share))

Rows: every worker has some rows, its loss is theirs, and the gradient of all is the mean of the workers' gradients.
What is not a mean over rows, the square of one say, takes the mean of all rows into the loss:

    mean_of_rows(own)         the mean                 each worker's gradient is its own part of the mean
    mean_between(own)         the mean                 used for rows again: both ways a mean

With one worker all are their argument.
"""

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx

from lrh_ray.collective import Share


def _sum(tensor: Tensor, share: Share) -> Tensor:
    total = tensor.detach().clone().contiguous()
    distributed.all_reduce(total, group=share.group)
    return total


class _Reduce(torch.autograd.Function):
    """The sum over workers times `factor`; the gradient as it is, or treated likewise."""

    @staticmethod
    def forward(ctx: FunctionCtx, part: Tensor, share: Share, factor: float, both_ways: bool) -> Tensor:
        ctx.share, ctx.factor, ctx.both_ways = share, factor, both_ways  # type: ignore[attr-defined]
        return _sum(part, share) * factor

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.both_ways:  # type: ignore[attr-defined]
            gradient = _sum(gradient, ctx.share) * ctx.factor  # type: ignore[attr-defined]
        return gradient, None, None, None


class _UsedInParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, whole: Tensor, share: Share) -> Tensor:
        ctx.share = share  # type: ignore[attr-defined]
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.share), None  # type: ignore[attr-defined]


def sum_of_parts(part: Tensor, share: Share) -> Tensor:
    """The sum over workers, whose gradient is whole."""
    return part if share.world == 1 else _Reduce.apply(part, share, 1.0, False)  # type: ignore[no-untyped-call]


def used_in_parts(whole: Tensor, share: Share) -> Tensor:
    """What every worker has, on its way into parts."""
    return whole if share.world == 1 else _UsedInParts.apply(whole, share)  # type: ignore[no-untyped-call]


def sum_between(part: Tensor, share: Share) -> Tensor:
    """The sum over workers, on its way into parts again."""
    return part if share.world == 1 else _Reduce.apply(part, share, 1.0, True)  # type: ignore[no-untyped-call]


def mean_of_rows(own: Tensor, share: Share) -> Tensor:
    """The mean over workers, on its way into a loss whose gradients are averaged over workers."""
    return _mean(own, share, both_ways=False)


def mean_between(own: Tensor, share: Share) -> Tensor:
    """The mean over workers, on its way into what is computed of each worker's rows."""
    return _mean(own, share, both_ways=True)


def _mean(own: Tensor, share: Share, *, both_ways: bool) -> Tensor:
    if share.world == 1:
        return own
    found: Tensor = _Reduce.apply(own, share, 1 / share.world, both_ways)  # type: ignore[no-untyped-call]
    return found
