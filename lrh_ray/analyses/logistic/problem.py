"""What is asked of the solver: moments of the rows, and the penalties of every label column."""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import Penalties, ProbeFloats, ProbeInts
from lrh_ray.analyses.moments import Moments, require_two_classes
from lrh_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogisticProblem:
    """K = C * L probes; probe j is label column j // L with penalty j % L.

    `penalties` [C, L] are absolute (see `absolute_penalties`). `names` of the label columns make errors readable.

    Raises:
        NotEnoughData: a label column has only one class in its population.
        ConfigError: a penalty is not above 0; without one, separable columns have no minimum.
    """

    moments: Moments
    penalties: Penalties
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_two_classes(self.moments, self.names)
        if not (np.isfinite(self.penalties) & (self.penalties > 0)).all():
            raise ConfigError(
                f"Logistic penalties are {self.penalties.tolist()!r}; each must be a finite number above 0, because "
                "a column that can be separated has no minimum without one."
            )

    @property
    def columns(self) -> ProbeInts:
        return np.repeat(np.arange(self.penalties.shape[0]), self.penalties.shape[1])

    @property
    def populations(self) -> ProbeInts:
        return np.asarray(self.moments.populations[self.columns])

    @property
    def probe_penalties(self) -> ProbeFloats:
        return self.penalties.ravel()

    @property
    def rate(self) -> ProbeFloats:
        """Share of positive rows of each probe's column."""
        return np.asarray(self.moments.rate[self.columns])
