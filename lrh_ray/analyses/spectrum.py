"""One symmetric eigendecomposition that solves for every column and every penalty.

Ridge, LDA and the metric of the logistic solver all need (a C + b I)^-1 for one covariance C and many pairs (a, b).
With C = V diag(e) V^T this costs one decomposition, O(D^3), and then O(D^2) per right-hand side.

What can go wrong: eigenvalues below D * eps * the largest are rounding noise. They count as zero, and where nothing is
added to them (b = 0) the solution leaves their directions out (the pseudo-inverse, the solution of least norm).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lrh_ray.analyses.layouts import ProbeFloats, ProbeWeights
from lrh_ray.analyses.ratio import ratio
from lrh_ray.layouts import Feature64, Gram64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues, ascending and not negative, and eigenvectors as columns."""

    values: Feature64
    vectors: Gram64

    @classmethod
    def of(cls, covariance: Gram64) -> "Spectrum":
        """Decompose in float64; values at rounding level become exactly 0."""
        values, vectors = scipy.linalg.eigh(covariance)
        noise = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
        return cls(values=np.where(values > noise, values, 0.0), vectors=vectors)

    def solve(self, right: ProbeWeights, scale: ProbeFloats, added: ProbeFloats) -> ProbeWeights:
        """(scale_k C + added_k I)^-1 right_k for every probe k; least norm where the matrix is singular."""
        inverse = ratio(1.0, self.values[:, None] * scale + added, otherwise=0.0)
        return np.asarray(self.vectors @ ((self.vectors.T @ right) * inverse))
