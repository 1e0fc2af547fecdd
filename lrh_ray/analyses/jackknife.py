"""The jackknife over groups of documents: intervals of anything that is computed from mergeable moments.

Leaving one group out costs a subtraction, so a number that takes a whole fit (an R^2, a cosine of directions) is
computed once without each group, and the spread of these replicates is its uncertainty, correlation inside documents
included (Quenouille, Tukey; Efron & Stein 1981):

    se^2 = (G - 1) / G sum_g (replicate_g - mean of replicates)^2

    interval = jackknife_interval(estimate, [statistic(moments.without(g)) for g in range(G)])

What can go wrong: statistics that jump, such as a median or a maximum, have no valid jackknife; take the bootstrap.
With few groups (below about 10) the ends, from Student's t, are wide and rough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from lrh_ray.errors import ConfigError, NotEnoughData


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float

    def apart_from(self, other: "Estimate") -> bool:
        """Whether the two intervals have no point in common."""
        return self.low > other.high or other.low > self.high


def jackknife_interval(value: float, replicates: Sequence[float], level: float = 0.95) -> Estimate:
    """`value` -+ t * se, with Student's t of G - 1 degrees of freedom over the G replicates.

    Raises:
        NotEnoughData: Fewer than 2 groups.
        ConfigError: A level outside (0, 1).
    """
    num = len(replicates)
    if num < 2:
        raise NotEnoughData(f"A jackknife needs at least 2 groups of documents; there are {num}.")
    if not 0 < level < 1:
        raise ConfigError(f"The level of an interval is {level!r}; it must lie between 0 and 1, 0.95 say.")
    error = np.sqrt((num - 1) * np.var(replicates))
    reach = float(stdtrit(num - 1, (1 + level) / 2) * error)
    return Estimate(value=value, low=value - reach, high=value + reach)
