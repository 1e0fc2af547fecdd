"""Sparse codes of rows: a few values, and the latents they belong to."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Codes:
    """What N rows are written with: of row n the first `count[n]` of `value` [N, K] (positive) and `index` [N, K]."""

    value: np.ndarray
    index: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, dense: np.ndarray) -> "Codes":
        """The positive ones among codes [N, M], of each row in the order of latents."""
        fires = dense > 0
        count = fires.sum(axis=1)
        row, latent = np.nonzero(fires)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        width = int(count.max(initial=0))
        value, index = np.zeros((len(dense), width), dense.dtype), np.zeros((len(dense), width), np.int32)
        value[row, place], index[row, place] = dense[row, latent], latent
        return cls(value=value, index=index, count=count)

    @property
    def num(self) -> int:
        return int(self.count.sum())

    def mask(self) -> np.ndarray:
        """True where an entry is one of a code [N, K]."""
        return np.asarray(np.arange(self.index.shape[1]) < self.count[:, None])

    def dense(self, num_latents: int) -> np.ndarray:
        """The same as an array [N, M]; for tests and for small ones."""
        full, mask = np.zeros((len(self.count), num_latents), self.value.dtype), self.mask()
        rows = np.broadcast_to(np.arange(len(self.count))[:, None], mask.shape)
        full[rows[mask], self.index[mask]] = self.value[mask]
        return full
