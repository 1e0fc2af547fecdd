"""LEACE: remove a concept from a representation so that no linear probe finds it (Belrose et al. 2023).

    eraser = leace(joint)          # x: rows, y: labels or one-hot classes
    eraser(rows)                   # every class has the same mean; nothing else moves more than it must

With W = cov(x)^(-1/2) and P the orthogonal projection on the span of W cov(x, y), the map
x -> x - W^+ P W (x - mean x) makes cov(x, y) exactly zero, which is when no linear probe of any loss beats a constant,
and is the closest such map to the identity in every inner product.

What can go wrong: the zero is exact on the rows of the moments; on others it is as good as their means are alike.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.layouts import Square
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.spectrum import Spectrum
from lrh_ray.layouts import Feature64, Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Eraser:
    """x -> x - (x - mean) projection^T, for rows as they stand in the store."""

    projection: Square
    mean: Feature64
    rank: int
    """Directions that are removed: at most the number of classes less one."""

    def __call__(self, rows: Rows) -> np.ndarray:
        """Erased rows [N, D], float64."""
        x = rows.astype(np.float64)
        return np.asarray(x - (x - self.mean) @ self.projection.T)


def leace(joint: Joint) -> Eraser:
    """The least-squares eraser of y from x. O(P^3)."""
    spectrum = Spectrum.of(joint.xx)
    root = np.sqrt(spectrum.values)
    whiten = (spectrum.vectors * ratio(1.0, root, otherwise=0.0)) @ spectrum.vectors.T
    unwhiten = (spectrum.vectors * root) @ spectrum.vectors.T
    u, values, _ = scipy.linalg.svd(whiten @ joint.xy, full_matrices=False)
    told = u[:, values > max(joint.xy.shape) * np.finfo(np.float64).eps * values.max(initial=0.0)]
    return Eraser(projection=unwhiten @ told @ told.T @ whiten, mean=joint.mean_x, rank=told.shape[1])
