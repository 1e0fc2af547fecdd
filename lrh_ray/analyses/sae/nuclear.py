"""Nuclear norm of a batch of codes by a truncated singular value decomposition, with its gradient.

    norm = nuclear_norm(codes, rank=64)              sum of the 64 largest singular values of [N, M]

For rank at least that of the matrix it is the nuclear norm; else it is a lower bound of it, by the values left out and
by what a randomised range misses (Halko, Martinsson & Tropp 2011, algorithm 4.4). The gradient is U V^T of the values
that were found: that of the sum of the largest ones.

The random directions are drawn from `seed` and not from torch's state, so that a resumed run takes the same.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lrh_ray.errors import ConfigError

OVERSAMPLING = 8
ITERATIONS = 2


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, matrix: Tensor, rank: int, seed: int) -> Tensor:
        left, values, right = truncated_svd(matrix, rank, seed=seed)
        found = values > values.max() * torch.finfo(matrix.dtype).eps * max(matrix.shape)
        ctx.save_for_backward(left[:, found], right[found])
        return values.sum()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        left, right = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * (left @ right), None, None


def nuclear_norm(matrix: Tensor, *, rank: int, seed: int = 0) -> Tensor:
    """Sum of the `rank` largest singular values of a matrix [N, M]; 4 (2 + iterations) N M rank FLOP."""
    norm: Tensor = _NuclearNorm.apply(matrix, rank, seed)  # type: ignore[no-untyped-call]
    return norm


@torch.no_grad()
def truncated_svd(matrix: Tensor, rank: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [N, k], the k largest singular values, V^T [k, M]; exact where k, oversampled, reaches the smaller side.

    Raises:
        ConfigError: A rank below 1.
    """
    if rank < 1:
        raise ConfigError(f"rank is {rank!r}; a truncated decomposition has at least one singular value.")
    smaller = min(matrix.shape)
    if rank + OVERSAMPLING >= smaller:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    noise = torch.Generator().manual_seed(seed)
    drawn = torch.randn(matrix.shape[1], rank + OVERSAMPLING, generator=noise, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ drawn.to(matrix.device)).Q
    for _ in range(ITERATIONS):
        across = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ across).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ left)[:, :rank], values[:rank], right[:rank]
