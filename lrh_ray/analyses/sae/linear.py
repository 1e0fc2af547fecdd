"""The encoder's product with a cheap gradient for the offset of its input.

    pre = encode(rows, encoder, bias, offset)                  (x - offset) encoder^T + bias, [N, M]

Left to autograd, the gradient of `offset` needs that of every row: a third product of N D M. It is only the sum of all
rows' gradients that counts, and sum_n (g_n encoder) = (sum_n g_n) encoder is a product with one vector.

    unit_rows(decoder)                                         rows back to length 1, after a step
    without_parallel(decoder)                                  the gradient, less its part along each row, before one

What can go wrong: rows are data, and get no gradient.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lrh_ray.errors import ConfigError


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, encoder: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
        centred = rows - offset
        ctx.save_for_backward(centred, encoder)
        return torch.addmm(bias, centred, encoder.T)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        centred, encoder = ctx.saved_tensors  # type: ignore[attr-defined]
        of_bias = gradient.sum(dim=0)
        return None, gradient.T @ centred, of_bias, -(of_bias @ encoder)


def encode(rows: Tensor, encoder: Tensor, bias: Tensor, offset: Tensor) -> Tensor:
    """Pre-activations [N, M] of rows [N, D]; encoder [M, D], bias [M], offset [D]."""
    if rows.requires_grad:
        raise ConfigError("encode gives rows no gradient; detach them.")
    found: Tensor = _Encode.apply(rows, encoder, bias, offset)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def without_parallel(decoder: Tensor) -> None:
    """Take the part of the gradient that is parallel to its row out; Adam would keep it in its moments."""
    if (gradient := decoder.grad) is not None:
        gradient.addcmul_((gradient * decoder).sum(dim=1, keepdim=True), decoder, value=-1)


@torch.no_grad()
def unit_rows(decoder: Tensor) -> None:
    """Bring every row back to length 1."""
    decoder /= torch.linalg.vector_norm(decoder, dim=1, keepdim=True)
