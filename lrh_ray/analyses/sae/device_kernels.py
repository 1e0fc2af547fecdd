"""What a sparse step needs of a GPU, in torch: products with sparse codes, sums by latent, and Adam on rows.

    rebuilt = decode(codes, decoder)                    # [N, D], sum of value * decoder row
    pulls = dots(errors, decoder, index)                # [N, K], error . decoder row
    gradient = SparseProducts.of(codes, slice(0, M)).with_rows(values, errors)   # [M, D], sum of value * error

No [N, K, D] array is ever made. Sums by latent go through sorted entries and not through atomic additions, so that a
step of the same rows has the same bits.

Legend: N rows, D features, M latents, of which L are summed by, K codes a row at most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lrh_ray.analyses.sae.tensor_codes import TensorCodes

SUM_MODE = 0
"""Of the bag kernels of torch."""


def decode(value: Tensor, index: Tensor, decoder: Tensor) -> Tensor:
    """Sum of value [N, K] times rows of decoder [M, D] at index [N, K]."""
    return functional.embedding_bag(index, decoder, per_sample_weights=value, mode="sum")


def dots(rows: Tensor, matrix: Tensor, index: Tensor) -> Tensor:
    """Products [N, K] of row n [N, D] with the rows of matrix [M, D] at index[n]."""
    num, width = index.shape
    bags = torch.arange(num, device=index.device, dtype=index.dtype)
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows.contiguous(), matrix, index.reshape(-1), bags * width, bags.repeat_interleave(width), SUM_MODE, -1
    )
    return found.view(num, width)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SparseProducts:
    """Entries of codes [N, K] sorted by latent, then by row: a sparse matrix [L, N] whose values are still free."""

    start: Tensor
    """First entry of each of L latents [L + 1]."""
    order: Tensor
    """Their entries, numbers among N K, in that order."""
    row: Tensor
    """Row of each."""

    @classmethod
    def of(cls, codes: TensorCodes, latents: slice, *, cut: bool = False) -> "SparseProducts":
        """Entries of some latents.

        Args:
            codes: Whose latents are known; their values only if they are cut.
            latents: Which are summed by.
            cut: Leave out entries of other latents, and absent ones, for which it waits for the device. Else there must
                be no other latents, and absent entries count with whatever value they will have.
        """
        index = torch.where(codes.value > 0, codes.index, latents.stop) if cut else codes.index
        found, order = index.reshape(-1).sort(stable=True)
        bounds = torch.arange(latents.start, latents.stop + 1, device=index.device, dtype=index.dtype)
        start = torch.searchsorted(found, bounds)
        if cut:
            first, last = start[[0, -1]].tolist()
            start, order = start - first, order[first:last]
        return cls(start=start, order=order, row=order // index.shape[1])

    def with_rows(self, value: Tensor, rows: Tensor) -> Tensor:
        """Sum by latent of value [N, K] times rows [N, D]: [L, D]."""
        entries = value.reshape(-1)[self.order]
        return functional.embedding_bag(self.row, rows, self.start[:-1], per_sample_weights=entries, mode="sum")

    def sums(self, value: Tensor) -> Tensor:
        """Sum by latent of value [N, K]: [L]."""
        return torch.segment_reduce(value.reshape(-1)[self.order], "sum", offsets=self.start)


def adam_rows(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor) -> None:
    """One step of Adam in place; `rates` as `AdamRates.at` gives them."""
    b1, c1, b2, c2, rate, root, epsilon = rates.unbind()
    first.copy_(b1 * first + c1 * gradient)
    second.copy_(b2 * second + c2 * gradient * gradient)
    parameter.sub_(rate * first / (second.sqrt() / root + epsilon))


def adam_unit_rows(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor) -> None:
    """The same without the part of the gradient along each row, and with rows brought back to length 1."""
    parallel = (gradient * parameter).sum(dim=1, keepdim=True)
    adam_rows(parameter, gradient - parallel * parameter, first, second, rates)
    parameter.div_(torch.linalg.vector_norm(parameter, dim=1, keepdim=True))
