"""How far a number lies above chance, of the way from chance to 1: two bounds of different chance made comparable.

    above_chance(Estimate(value=0.67, low=0.61, high=0.72), chance=0.35)        # .49 [.40, .57]

The best of thousands of latents goes with anything, and the more latents and the fewer words, the better: a bound of
.67 may be much or nothing. `(bound - chance) / (1 - chance)` is 0 for what a null gives on average and 1 for a perfect
match, as Cohen's kappa is for agreement.

Chance is the mean of many draws of a null and taken as known, so that the interval is that of the number alone.

What can go wrong: below chance it is negative, and of a chance near 1 it is large and means nothing.
"""

from typing import TypeVar

import numpy as np

from lrh_ray.analyses.jackknife import Estimate

Number = TypeVar("Number", float, np.ndarray)


def above_chance(found: Estimate, chance: float) -> Estimate:
    """A number and its interval, counted from `chance` (below 1) in units of what is left up to 1."""
    return Estimate(
        value=share_above(found.value, chance),
        low=share_above(found.low, chance),
        high=share_above(found.high, chance),
    )


def share_above(value: Number, chance: float) -> Number:
    """(value - chance) / (1 - chance)."""
    return (value - chance) / (1 - chance)
