"""Clusters on a sphere behind an invertible network: does telling classes apart recover where a point lies?

The world of 2410.21869 (section 4; code: klindtlab/csi). A class c has a direction v_c; a point z is drawn around it
from the von Mises-Fisher distribution, p(z | c) ~ exp(kappa v_c . z), and a learner sees x = g(z) with g an invertible
network. Since p(c | z) is the softmax of kappa v_c . z, a classifier of the form softmax(w_c . f(x)) is perfect exactly
when its features are a linear map of z: the claim is that training finds such features.

    world = SphereWorld.random(np.random.default_rng(0), concentration=10.0)
    z, c = world.draw(1024, rng)
    x = world.observe(z)
    world.log_posterior(z)              # [N, C] log p(c | z), nats: what a perfect classifier says

What can go wrong: with a large concentration the clusters are islands. p(c | z) is then nearly 0 or 1, a classifier is
nearly perfect with any features that tell the islands apart, and the little loss that is left moves the rest slowly.
The linear map is still the best there is: R^2 at concentration 50 is a fact about the length of training.

Legend: N points, D dimensions of the space around the sphere, C classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax
from scipy.stats import ortho_group

from lrh_ray.analyses.layouts import Centres, Classes, LogPosteriors, Square
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Rows64

SLOPE = 0.2
"""Of the mixing's leaky ReLUs below 0, as in the source."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SphereWorld:
    """`centres` [C, D] on the unit sphere; `mixing`: orthogonal layers [D, D] with leaky ReLUs between them."""

    centres: Centres
    concentration: float
    mixing: tuple[Square, ...]

    def __post_init__(self) -> None:
        num, dim = self.centres.shape
        if num < 2 or dim < 2:
            raise ConfigError(f"A world of {num} classes in {dim} dimensions; it needs at least 2 of either.")
        if not (math.isfinite(self.concentration) and self.concentration > 0):
            raise ConfigError(f"concentration is {self.concentration!r}; it is a positive finite number, 10 say.")

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        dim: int = 5,
        num_classes: int = 100,
        concentration: float = 10.0,
        layers: int = 4,
    ) -> "SphereWorld":
        """Directions uniform on the sphere, and rotations drawn uniformly.

        The source takes the best-conditioned of 25,000 random matrices for each layer, which come near rotations.
        """
        centres = _unit(rng.standard_normal((num_classes, dim)))
        mixing = tuple(ortho_group.rvs(dim, random_state=rng) for _ in range(layers))
        return cls(centres=centres, concentration=concentration, mixing=mixing)

    @property
    def dim(self) -> int:
        return int(self.centres.shape[1])

    def draw(self, num_points: int, rng: np.random.Generator) -> tuple[Rows64, Classes]:
        """Points [N, D] and their classes [N], all classes equally likely."""
        classes = rng.integers(len(self.centres), size=num_points)
        return self.around(classes, rng), classes

    def around(self, classes: Classes, rng: np.random.Generator) -> Rows64:
        """One point [N, D] of every class named."""
        return draw_around(self.centres[classes], self.concentration, rng)

    def observe(self, points: Rows64) -> Rows64:
        """What a learner sees, x = g(z). Invertible, since each layer is."""
        x = points
        for layer in self.mixing[:-1]:
            x = x @ layer.T
            x = np.where(x > 0, x, SLOPE * x)
        return np.asarray(x @ self.mixing[-1].T)

    def log_posterior(self, points: Rows64) -> LogPosteriors:
        """Log p(c | z) [N, C], exact: every class has the same normalising constant."""
        return np.asarray(log_softmax(self.concentration * points @ self.centres.T, axis=1))


def draw_around(centres: Rows64, concentration: float, rng: np.random.Generator) -> Rows64:
    """A von Mises-Fisher point around each row of `centres` [N, D], which have length 1.

    The cosine to the centre by Wood's rejection (1994), and a direction uniform among those across it. Vectorised over
    different centres, which SciPy's sampler is not: a training step needs a thousand of them.
    """
    num_points, dim = centres.shape
    along = _cosines(num_points, dim, concentration, rng)[:, None]
    across = rng.standard_normal((num_points, dim))
    across = _unit(across - (across * centres).sum(axis=1, keepdims=True) * centres)
    return np.asarray(along * centres + np.sqrt(np.maximum(1 - along**2, 0)) * across)


def _cosines(num_points: int, dim: int, concentration: float, rng: np.random.Generator) -> np.ndarray:
    """Draws of v . z [N], density ~ (1 - t^2)^((D - 3) / 2) exp(kappa t)."""
    half = (dim - 1) / 2
    b = half / (concentration + math.hypot(concentration, half))
    best = (1 - b) / (1 + b)
    bound = concentration * best + 2 * half * math.log(1 - best**2)
    found, left = np.empty(num_points), np.arange(num_points)
    while len(left):
        share = rng.beta(half, half, size=len(left))
        t = (1 - (1 + b) * share) / (1 - (1 - b) * share)
        taken = concentration * t + 2 * half * np.log(1 - best * t) - bound >= -rng.exponential(size=len(left))
        found[left[taken]] = t[taken]
        left = left[~taken]
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
