"""How often latents fire, and how strongly: sums over rows of every group of documents.

firing = Firing.of(codes, groups, num_latents=4096, num_groups=20)
firing = merge_tree(...)
firing.density(17)                  # Estimate: share of rows, jackknifed over groups
firing.mean[17]                     # of its codes where it fires
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.layouts import GroupIndex
from lrh_ray.analyses.sae.codes import Codes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Firing:
    """Mergeable counts of M latents in each of G groups of documents."""

    fired: np.ndarray
    """[G, M] int64: rows in which a latent fires."""
    total: np.ndarray
    """[M] float64: sum of codes."""
    rows: np.ndarray
    """[G] int64."""

    @classmethod
    def of(cls, codes: Codes, groups: GroupIndex, *, num_latents: int, num_groups: int) -> "Firing":
        """Count one block: codes of N rows, and the group [N] of each."""
        mask = codes.mask()
        latent, value = codes.index[mask].astype(np.int64), codes.value[mask].astype(np.float64)
        place = np.repeat(groups, codes.count) * num_latents + latent
        fired = np.bincount(place, minlength=num_groups * num_latents)
        return cls(
            fired=fired.reshape(num_groups, num_latents),
            total=np.bincount(latent, weights=value, minlength=num_latents),
            rows=np.bincount(groups, minlength=num_groups),
        )

    def merge(self, other: "Firing") -> "Firing":
        return Firing(fired=self.fired + other.fired, total=self.total + other.total, rows=self.rows + other.rows)

    @property
    def mean(self) -> np.ndarray:
        """Mean code [M] over the rows in which a latent fires; 0 for one that never does."""
        return np.asarray(self.total / np.maximum(self.fired.sum(axis=0), 1))

    def density(self, latent: int) -> Estimate:
        """Share of rows in which a latent fires.

        Raises:
            NotEnoughData: Fewer than two groups have rows.
        """
        used = np.flatnonzero(self.rows)
        fired, rows = self.fired[:, latent].sum(), self.rows.sum()
        without = [
            (fired - self.fired[g, latent]) / (rows - self.rows[g]) for g in used.tolist() if rows > self.rows[g]
        ]
        return jackknife_interval(float(fired / max(rows, 1)), [float(one) for one in without])
