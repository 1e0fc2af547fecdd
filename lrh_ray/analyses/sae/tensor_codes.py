"""Sparse codes of rows as tensors of one device: what workers send each other, and what a step on a GPU computes with.

    codes = TensorCodes.of(codes_in_numpy)           # wraps the arrays, copies nothing
    codes.by_latent().largest(k)                     # the k largest of each row, of equal ones the lowest latents
    codes.codes()                                    # back again

Absent entries have a value of 0 and any index that is a latent's, so that widths need not be known row by row.

Legend: N rows, K codes a row at most.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.codes import Codes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorCodes:
    """Values and latents [N, K]; absent ones have value 0."""

    value: Tensor
    index: Tensor

    @classmethod
    def of(cls, codes: Codes) -> "TensorCodes":
        """The same memory."""
        return cls(value=torch.from_numpy(codes.value), index=torch.from_numpy(codes.index))

    def codes(self) -> Codes:
        """The same memory, on the CPU; of each row the codes must come before what is absent."""
        value, index = self.value.contiguous().numpy(), self.index.to(torch.int32).contiguous().numpy()
        return Codes(value=value, index=index, count=np.count_nonzero(value > 0, axis=1))

    def at(self, place: Tensor) -> "TensorCodes":
        """Entries of each row at `place` [N, L]."""
        return TensorCodes(value=self.value.gather(1, place), index=self.index.gather(1, place))

    def by_latent(self) -> "TensorCodes":
        """Entries of each row in the order of their latents; absent ones as their index says."""
        return self.at(self.index.argsort(dim=1, stable=True))

    def largest(self, k: int) -> "TensorCodes":
        """The k largest of each row, the largest first; of equal ones those that stand first."""
        return self.at(self.value.argsort(dim=1, descending=True, stable=True)[:, :k])

    def packed(self) -> "TensorCodes":
        """The codes of each row before what is absent, no wider than the row that has most; waits for the device."""
        there = self.value > 0
        width = max(1, int(there.sum(dim=1).max()))
        return self.at(there.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width])
