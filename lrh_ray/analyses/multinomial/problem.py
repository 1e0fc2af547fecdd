"""What is asked of the multinomial solver: moments of the rows, the classes of one concept, and penalties."""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ClassFloats, ClassInts, PenaltyFloats
from lrh_ray.analyses.moments import Moments, shared_population
from lrh_ray.errors import ConfigError, NotEnoughData


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MultinomialProblem:
    """One concept whose M classes are the label columns `columns`, with absolute `penalties` [L].

    `name` of the concept makes errors readable.

    Raises:
        NotEnoughData: fewer than 2 classes, or a class without rows.
        ConfigError: a penalty is not above 0; without one, classes that can be separated have no minimum.
        ValueError: the columns do not partition one population.
    """

    moments: Moments
    columns: ClassInts
    penalties: PenaltyFloats
    name: str = "without a name"

    def __post_init__(self) -> None:
        if len(self.columns) < 2:
            raise NotEnoughData(
                f"The concept {self.name!r} has {len(self.columns)} classes; a multinomial probe needs at least 2."
            )
        if not (np.isfinite(self.penalties) & (self.penalties > 0)).all() or not len(self.penalties):
            raise ConfigError(
                f"Penalties of the concept {self.name!r} are {self.penalties.tolist()!r}; give at least one, each a "
                "finite number above 0, because classes that can be separated have no minimum without one."
            )
        shared_population(self.moments, self.columns)

    @property
    def population(self) -> int:
        return int(self.moments.populations[self.columns[0]])

    @property
    def rate(self) -> ClassFloats:
        """Share of the rows in each class [M]."""
        return np.asarray(self.moments.rate[self.columns])
