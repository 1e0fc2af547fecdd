"""The threshold above which latents fire k times a row, exact over a whole corpus: two counts of float bits.

    coarse = PreActivationCounts.of(rows, parameters)                  # merged over all blocks
    prefix = coarse.place(k)
    fine = PreActivationCounts.of(rows, parameters, prefix=prefix)     # a second pass
    fine.threshold(coarse, k)

Positive floats are ordered as their bits are. The first pass counts pre-activations by their upper 16 bits, which says
in which of 32,768 intervals the (rows k)-th largest lies; the second counts those of that interval by their lower 16.
A running average of batches, as is usual, follows the last weights with a delay and the last batches by chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.reader import pre_activations, tiles
from lrh_ray.layouts import Rows

HALF_BITS = 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreActivationCounts:
    """How many positive pre-activations there are by half of their bits [65536], and of how many rows."""

    counts: np.ndarray
    rows: int
    prefix: int | None = None
    """Upper half of the bits of those counted by their lower half; None counts all by their upper half."""

    @classmethod
    def of(cls, rows: Rows, parameters: Mapping[str, Tensor], *, prefix: int | None = None) -> "PreActivationCounts":
        """Count those of rows [N, D]; 2 N D M FLOP."""
        counts = np.zeros(1 << HALF_BITS, dtype=np.int64)
        for _, tile in tiles(rows):
            with torch.no_grad():
                pre = pre_activations(parameters, tile).numpy()
            bits = pre[pre > 0].view(np.uint32)
            upper = bits >> HALF_BITS
            chosen = upper if prefix is None else bits[upper == prefix] & ((1 << HALF_BITS) - 1)
            counts += np.bincount(chosen, minlength=len(counts))
        return cls(counts=counts, rows=len(rows), prefix=prefix)

    def merge(self, other: "PreActivationCounts") -> "PreActivationCounts":
        return PreActivationCounts(counts=self.counts + other.counts, rows=self.rows + other.rows, prefix=self.prefix)

    def place(self, k: float) -> int | None:
        """Upper bits of the (rows k)-th largest; None where fewer than so many are positive."""
        return _place(self.counts, self.rows * k)

    def threshold(self, coarse: "PreActivationCounts", k: float) -> float:
        """The (rows k)-th largest pre-activation, from the counts of all and from those of its interval."""
        if self.prefix is None:
            return 0.0
        above = int(coarse.counts[self.prefix + 1 :].sum())
        lower = _place(self.counts, coarse.rows * k - above)
        bits = np.uint32((self.prefix << HALF_BITS) + (lower or 0))
        return float(bits.view(np.float32))


def _place(counts: np.ndarray, wanted: float) -> int | None:
    """The bin that holds the `wanted`-th largest."""
    from_above = counts[::-1].cumsum()
    if from_above[-1] < wanted:
        return None
    return len(counts) - 1 - int(np.searchsorted(from_above, wanted))
